package lock_test

import (
	"context"
	"fmt"
	"log"
	"os/exec"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// provider stands in for a *goose.Provider.
type provider struct{}

func (provider) Up(ctx context.Context) ([]string, error) {
	return []string{"00001_users.sql"}, ctx.Err()
}

// migrator stands in for a *migrate.Migrate of golang-migrate.
type migrator struct{ GracefulStop chan bool }

func (migrator) Up() error { return nil }

func ExampleMutex_Do_migration() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		log.Fatal(err)
	}
	var goose provider
	m := migrator{GracefulStop: make(chan bool, 1)}
	err = func() error {
		// begin docs/adapters.md
		migration := lock.NewMutex(client, "schema-migration")
		err := migration.Do(ctx, func(ctx context.Context, _ *lease.Lease) error {
			_, err := goose.Up(ctx) // ends with the lock
			return err
		})
		// end docs/adapters.md
		if err != nil {
			return err
		}
		// begin docs/adapters.md
		err = migration.Do(ctx, func(ctx context.Context, _ *lease.Lease) error {
			stop := context.AfterFunc(ctx, func() { m.GracefulStop <- true }) // after the step it is at
			defer stop()
			return m.Up()
		})
		// end docs/adapters.md
		if err != nil {
			return err
		}
		apply := []string{"true", "migrate", "apply", "--env", "prod"}
		// begin docs/adapters.md
		err = migration.Do(ctx, func(ctx context.Context, _ *lease.Lease) error {
			return exec.CommandContext(ctx, apply[0], apply[1:]...).Run() // atlas migrate apply --env prod
		})
		// end docs/adapters.md
		return err
	}()
	fmt.Println(err)
	if err := client.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: <nil>
}
