package dynastore_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/dynalock/dynalock/adapters/dynastore"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

func ExampleTable_Import() {
	ctx := context.Background()
	server := dynamomem.New()
	server.CreateTable("app", "id", "name")
	db := server.Client()
	if err := (oldStore{db, "app", "settings"}).put("colour", "Ymx1ZQ==", time.Time{}, nil, 0); err != nil {
		log.Fatal(err)
	}
	err := func() error {
		// begin docs/migration.md
		old, err := dynastore.Open(db, "app", "settings") // table and partition of the old program
		if err != nil {
			return err
		}
		store, err := dynamokv.New(db, "app", dynamokv.WithPartition("settings-2"))
		if err != nil {
			return err
		}
		done, err := old.Import(ctx, store, dynastore.Base64) // what WriteWithBytes wrote
		fmt.Println(done.Copied, "copied,", done.Kept, "were there")
		// end docs/migration.md
		if err != nil {
			return err
		}
		pair, err := store.Get(ctx, "colour")
		fmt.Println(pair)
		return err
	}()
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// 1 copied, 0 were there
	// blue
}

func ExampleTable_TakeOver() {
	ctx := context.Background()
	server := dynamomem.New()
	server.CreateTable("app", "id", "name")
	db := server.Client()
	if err := (oldStore{db, "app", "settings"}).put("colour", "Ymx1ZQ==", time.Time{}, nil, 0); err != nil {
		log.Fatal(err)
	}
	old, err := dynastore.Open(db, "app", "settings")
	if err != nil {
		log.Fatal(err)
	}
	err = func() error {
		// begin docs/migration.md
		for row, err := range old.All(ctx, "") { // the live rows that are not taken over yet
			if err != nil {
				return err
			}
			if err := old.TakeOver(ctx, row, dynastore.Base64); err != nil {
				return err // kv.ErrKeyModified: somebody still writes it
			}
		}
		store, err := dynamokv.New(db, "app", dynamokv.WithPartition("settings")) // the same partition
		// end docs/migration.md
		if err != nil {
			return err
		}
		pair, err := store.Get(ctx, "colour")
		fmt.Println(pair)
		return err
	}()
	if err != nil {
		log.Fatal(err)
	}
	// Output: blue
}
