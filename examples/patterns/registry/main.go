// Registry is a service registry. Each process registers its address, as a lease
// with a value, and says which others there are whenever that changes. Start it in
// several terminals. Stop one with ^C, and it is gone at once. Kill one with kill
// -9, and it is gone within a few seconds.
//
//	go run ./examples/patterns/registry
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// web is what the keys of all instances of one service begin with.
const web = "services/web/"

func main() { stores.Main(register) }

func register(ctx context.Context, store kv.Store) error {
	client, err := lease.New(store, lease.WithTTL(3*time.Second)) // one client per process
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = client.Close(ctx)
	}()
	address := fmt.Sprintf("10.0.0.1:%d", os.Getpid())
	entry, err := client.Acquire(ctx, web+address, lease.WithValue([]byte(address)))
	if err != nil {
		return err
	}
	defer func() { _ = entry.Release(ctx) }()
	var known []string
	for {
		addresses, err := list(ctx, client)
		if err == nil && !slices.Equal(addresses, known) {
			known = addresses
			fmt.Println("registered:", known)
		}
		select {
		case <-entry.Context().Done(): // as after an outage: register again
			return entry.Err()
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second): // an outage shows in entry
		}
	}
}

// list returns the addresses of those that live. Called again and again, it
// notices who has died, and ends its session.
func list(ctx context.Context, client *lease.Client) ([]string, error) {
	living := map[string]bool{}
	for member, err := range client.Alive(ctx, "") {
		if err != nil {
			return nil, err
		}
		living[member.Session] = true
	}
	var addresses []string
	for holder, err := range client.Holders(ctx, web) {
		if err != nil {
			return nil, err
		}
		if living[holder.Session] {
			addresses = append(addresses, string(holder.Value))
		}
	}
	return addresses, nil
}
