package lease_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// Two licences, for three processes.
func ExampleClient_TryAcquireAny() {
	ctx := context.Background()
	store := memkv.New()
	licences := []string{"licence/1", "licence/2"}
	for _, name := range []string{"one", "two", "three"} {
		client, err := lease.New(store, lease.WithOwner(name))
		if err != nil {
			panic(err)
		}
		defer func() { _ = client.Close(ctx) }()

		l, err := client.TryAcquireAny(ctx, licences, lease.WithListing("licence/", nil))
		var held *lease.HeldError
		switch {
		case errors.As(err, &held):
			fmt.Println(name, "finds", len(held.Holders), "in use")
		case err != nil:
			panic(err)
		default:
			defer func() { _ = l.Release(ctx) }()
			fmt.Println(name, "has one")
		}
	}
	// Output:
	// one has one
	// two has one
	// three finds 2 in use
}
