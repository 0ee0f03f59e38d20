package stores

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/dynalock/dynalock/kv"
)

// Main is the main function of a recipe. It runs the recipe until that returns
// or ^C comes, on an SQLite file in the folder for temporary files, so that
// programs in several terminals share it. An error ends the process with
// status 1. A stop is no error.
func Main(recipe func(ctx context.Context, store kv.Store) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	store, closeStore, err := Open(ctx, "sqlite:"+filepath.Join(os.TempDir(), "dynalock-recipes.db"), false)
	if err == nil {
		err = errors.Join(recipe(ctx, store), closeStore())
	}
	stopped := ctx.Err() != nil && errors.Is(err, context.Canceled)
	if err != nil && !stopped {
		log.Fatal(err)
	}
}
