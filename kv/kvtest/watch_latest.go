package kvtest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// testWatchLatest watches keys that two writers each put and delete at once:
// versions only grow, and the last state comes.
func testWatchLatest(t *testing.T, e *env) {
	const keys = 3
	w := e.watch(t, e.other, e.prefix)
	w.want(t, "synced")
	ctx, cancel := context.WithCancel(e.ctx)
	writers, ctx := errgroup.WithContext(ctx)
	defer func() {
		cancel() // if the test has failed, no writer must keep it waiting
		if err := writers.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("a writer: %v", err)
		}
	}()
	for k := range keys {
		writers.Go(func() error { return e.churn(ctx, e.key(fmt.Sprint(k))) })
	}
	versions, reported := map[string]uint64{}, map[string]bool{}
	for done := 0; done < keys; {
		event := w.event(t)
		if event.Type == kv.EventDelete {
			require.True(t, reported[event.Key], "a delete of what was not told")
			reported[event.Key] = false
			continue
		}
		require.Greater(t, event.Pair.Version, versions[event.Key])
		versions[event.Key], reported[event.Key] = event.Pair.Version, true
		if event.Pair.String() == "last" {
			done++
		}
	}
}

// churn puts and deletes a pair by both handles at once, slowly enough for a
// watch to see some of its states, and puts "last" then.
func (e *env) churn(ctx context.Context, key string) error {
	both, inner := errgroup.WithContext(ctx)
	for _, store := range []kv.Store{e.store, e.other} {
		both.Go(func() error { return churnBy(inner, store, key) })
	}
	if err := both.Wait(); err != nil {
		return err
	}
	return e.store.Put(ctx, key, kv.WithString("last"))
}

func churnBy(ctx context.Context, store kv.Store, key string) error {
	const writes, pause = 20, 10 * time.Millisecond
	for i := range writes {
		if err := store.Put(ctx, key, kv.WithString(fmt.Sprint(i))); err != nil {
			return err
		}
		if err := clock.Sleep(ctx, clock.System, pause); err != nil {
			return err
		}
		if i%3 < 2 {
			continue
		}
		if err := store.Delete(ctx, key); err != nil {
			return err
		}
		if err := clock.Sleep(ctx, clock.System, pause); err != nil {
			return err
		}
	}
	return nil
}
