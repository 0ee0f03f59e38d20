// Cache uses a cache that all its processes share, a file. Many read it at a
// time. Whoever finds it old rebuilds it, while nobody reads. Start it in
// several terminals.
//
//	go run ./examples/patterns/cache
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// fresh is how old the cache may be.
const fresh = 2 * time.Second

var file = filepath.Join(os.TempDir(), "dynalock-cache.txt")

func main() { stores.Main(use) }

func use(ctx context.Context, store kv.Store) error {
	client, err := lease.New(store) // one client per process
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = client.Close(ctx)
	}()
	cache := lock.NewRWMutex(client, "cache") // one for all goroutines
	for range 20 {
		if isOld() {
			err = cache.Do(ctx, rebuild)
		}
		if err == nil {
			err = cache.RDo(ctx, read)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isOld() bool {
	info, err := os.Stat(file)
	return err != nil || time.Since(info.ModTime()) > fresh
}

// rebuild writes the file in two steps, between which nobody may read it. ctx
// ends if the lock is lost.
func rebuild(ctx context.Context, l *lease.Lease) error {
	if !isOld() {
		return nil // somebody else was faster
	}
	if err := os.WriteFile(file, []byte("half"), 0o600); err != nil {
		return err
	}
	select {
	case <-time.After(200 * time.Millisecond): // it takes its time
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	fmt.Println("rebuilt it, with token", l.Token())
	return os.WriteFile(file, []byte("whole"), 0o600)
}

// read reads the file for a while.
func read(ctx context.Context, l *lock.ReadLease) error {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // somebody has removed it
	}
	fmt.Printf("read %q in epoch %d\n", content, l.Epoch())
	select {
	case <-time.After(100 * time.Millisecond):
	case <-ctx.Done():
	}
	return err
}
