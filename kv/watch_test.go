package kv_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/memkv"
)

// opaque hides what a store implements besides kv.Store.
type opaque struct{ kv.Store }

func TestPolledIsAStore(t *testing.T) {
	t.Parallel()
	kvtest.Run(t, kvtest.Harness{
		Open:   func(*testing.T) kv.Store { return opaque{memkv.New()} },
		Second: func(_ *testing.T, store kv.Store) kv.Store { return store },
	})
}

func TestAPollingWatchListsOncePerInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for options, want := range map[*[]kv.WatchOption]int{{}: 61, {kv.WithWatchInterval(time.Minute)}: 2} {
			lists := 0
			store := kv.Instrument(opaque{memkv.New()},
				func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
					lists++
					return next(ctx)
				})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Millisecond)
			defer cancel()
			var last error
			for _, err := range kv.Watch(ctx, store, "", *options...) {
				last = err
			}
			require.ErrorIs(t, last, context.DeadlineExceeded)
			require.Equal(t, want, lists)
		}
	})
}

func TestAPollingWatchGoesOnAfterErrors(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		inner := memkv.New()
		require.NoError(t, inner.Put(ctx, "gone"))
		var outage error
		store := kv.Prefixed(kv.Instrument(opaque{inner},
			func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
				if outage != nil {
					return outage
				}
				return next(ctx)
			}), "")
		boom := errors.New("boom")
		var told []string
		errs := 0
		for event, err := range kv.Watch(ctx, store, "") {
			switch {
			case err != nil:
				require.ErrorIs(t, err, boom)
				require.Zero(t, event)
				if errs++; errs == 3 {
					outage = nil
				}
				continue
			case event.Type == kv.EventSynced:
				outage = boom
				require.NoError(t, inner.Delete(ctx, "gone"))
				require.NoError(t, inner.Put(ctx, "new"))
			}
			if told = append(told, event.Type.String()+" "+event.Key); len(told) == 4 {
				break
			}
		}
		require.Equal(t, 3, errs)
		require.Equal(t, []string{"put gone", "synced ", "delete gone", "put new"}, told)
	})
}

func TestWatchPassesInstrumentToANativeWatch(t *testing.T) {
	t.Parallel()
	store := kv.Instrument(memkv.New(), func(context.Context, kv.Call, func(context.Context) error) error {
		return errors.New("this watch lists")
	})
	for event, err := range kv.Watch(t.Context(), store, "") {
		require.NoError(t, err)
		require.Equal(t, kv.Event{Type: kv.EventSynced}, event)
		break
	}
}

func TestEventTypesHaveNames(t *testing.T) {
	t.Parallel()
	require.Equal(t, "put delete synced EventType(9)",
		kv.EventPut.String()+" "+kv.EventDelete.String()+" "+kv.EventSynced.String()+" "+kv.EventType(9).String())
}
