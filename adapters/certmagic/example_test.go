package certmagicstorage_test

import (
	"context"
	"fmt"
	"log"

	"github.com/caddyserver/certmagic"

	"github.com/dynalock/dynalock/adapters/certmagic"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func ExampleNew() {
	store := memkv.New()
	client, err := lease.New(store)
	if err != nil {
		log.Fatal(err)
	}
	err = func() error {
		// begin docs/adapters.md
		storage, err := certmagicstorage.New(store, client)
		if err != nil {
			return err
		}
		certmagic.Default.Storage = storage // then certmagic.HTTPS, certmagic.TLS, ...
		// end docs/adapters.md
		return nil
	}()
	if err != nil {
		log.Fatal(err)
	}
	storage := certmagic.NewDefault().Storage
	if err := storage.Store(context.Background(), "certificates/fake/example.com", []byte("...")); err != nil {
		log.Fatal(err)
	}
	fmt.Println(storage.List(context.Background(), "certificates", true))
	if err := client.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output: [certificates/fake/example.com] <nil>
}
