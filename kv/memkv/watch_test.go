package memkv_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

// collect watches in a goroutine and returns the events in a channel that is
// closed at the watch's end.
func collect(ctx context.Context, store kv.Store) <-chan kv.Event {
	events := make(chan kv.Event, 100)
	go func() {
		defer close(events)
		for event, err := range kv.Watch(ctx, store, "") {
			if err != nil {
				return
			}
			events <- event
		}
	}()
	return events
}

func TestAWatchSeesExpiryToTheMillisecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		store := memkv.New(memkv.WithClock(clock.System))
		require.NoError(t, store.Put(ctx, "k", kv.WithTTL(time.Hour)))
		require.NoError(t, store.Put(ctx, "longer", kv.WithTTL(2*time.Hour)))
		events := collect(ctx, store)
		synctest.Wait()
		require.Len(t, events, 3)
		for range 3 {
			<-events
		}
		time.Sleep(time.Hour - time.Millisecond)
		synctest.Wait()
		require.Empty(t, events)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		require.Len(t, events, 1)
		require.Equal(t, kv.Event{Type: kv.EventDelete, Key: "k"}, <-events)
	})
}

func TestAWatchSeesAWriteAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		store := memkv.New()
		events := collect(ctx, store)
		synctest.Wait()
		require.Equal(t, kv.EventSynced, (<-events).Type)
		before := time.Now()
		require.NoError(t, store.Put(ctx, "k"))
		require.Equal(t, "k", (<-events).Key)
		require.Equal(t, before, time.Now(), "no time has passed")
	})
}

func TestAnIdleWatchNeverWakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		// A clock that stands still for its timers, too: a watch that polled would never end.
		store := memkv.New(memkv.WithClock(noTimers{clock.System}))
		events := collect(ctx, store)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		require.Len(t, events, 1)
	})
}

// noTimers is a clock whose timers panic.
type noTimers struct{ clock.Clock }

func (noTimers) NewTimer(time.Duration) clock.Timer { panic("a timer was made") }

func TestASlowReaderBlocksNobodyAndSeesTheLatest(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memkv.New()
	require.NoError(t, store.Put(ctx, "k", kv.WithString("first")))
	var seen []string
	for event, err := range kv.Watch(ctx, store, "") {
		require.NoError(t, err)
		if event.Type == kv.EventSynced {
			for range 1000 { // while the watch stands in this loop's body
				require.NoError(t, store.Put(ctx, "k", kv.WithString("middle")))
			}
			require.NoError(t, store.Put(ctx, "k", kv.WithString("last")))
			continue
		}
		if seen = append(seen, event.Pair.String()); len(seen) == 2 {
			break
		}
	}
	require.Equal(t, []string{"first", "last"}, seen)
}
