package kv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/memkv"
)

func TestPrefixedIsAStore(t *testing.T) {
	t.Parallel()
	kvtest.Run(t, kvtest.Harness{
		Open:        func(*testing.T) kv.Store { return kv.Prefixed(memkv.New(), "part/") },
		KeyOverhead: len("part/"),
	})
}

func TestInstrumentedIsAStore(t *testing.T) {
	t.Parallel()
	pass := func(ctx context.Context, _ kv.Call, next func(context.Context) error) error { return next(ctx) }
	kvtest.Run(t, kvtest.Harness{Open: func(*testing.T) kv.Store { return kv.Instrument(memkv.New(), pass) }})
}

func TestInstrumentCallsTheHookWithMethodAndKey(t *testing.T) {
	t.Parallel()
	var calls []kv.Call
	store := kv.Instrument(memkv.New(), func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		calls = append(calls, call)
		return next(ctx)
	})
	ctx := t.Context()
	require.NoError(t, store.Put(ctx, "a"))
	pair, err := store.AtomicPut(ctx, "b")
	require.NoError(t, err)
	require.NoError(t, store.AtomicDelete(ctx, "b", pair))
	require.NoError(t, store.Delete(ctx, "a"))
	_, err = store.Get(ctx, "c")
	require.ErrorIs(t, err, kv.ErrKeyNotFound)
	_, err = store.Exists(ctx, "d")
	require.NoError(t, err)
	_, err = store.List(ctx, "e")
	require.NoError(t, err)
	_, err = store.ListPage(ctx, "f")
	require.NoError(t, err)
	require.Equal(t, []kv.Call{
		{Op: "Put", Key: "a"}, {Op: "AtomicPut", Key: "b"}, {Op: "AtomicDelete", Key: "b"}, {Op: "Delete", Key: "a"},
		{Op: "Get", Key: "c"}, {Op: "Exists", Key: "d"}, {Op: "List", Key: "e"}, {Op: "ListPage", Key: "f"},
	}, calls)
}

func TestInstrumentReturnsTheHooksErrorAndNoResult(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	inner := memkv.New()
	store := kv.Instrument(inner, func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
		if err := next(ctx); err != nil {
			return err
		}
		return boom
	})
	pair, err := store.AtomicPut(t.Context(), "k")
	require.ErrorIs(t, err, boom)
	require.Nil(t, pair)
	_, err = inner.Get(t.Context(), "k")
	require.NoError(t, err, "next had run")
	exists, err := store.Exists(t.Context(), "k")
	require.ErrorIs(t, err, boom)
	require.False(t, exists)
}

func TestWrappersLetOptionalInterfacesThrough(t *testing.T) {
	t.Parallel()
	store := kv.Instrument(kv.Prefixed(memkv.New(), "p/"), nil)
	require.Zero(t, kv.MaxWriteDelay(store))
	require.Equal(t, kv.Condition{Key: "p/k", Field: "f", Value: 1},
		kv.ResolveCondition(store, kv.Condition{Key: "k", Field: "f", Value: 1}))
}

func TestPrefixedMapsKeysOfResultsAndErrors(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	inner := memkv.New()
	store := kv.Prefixed(inner, "p/")
	require.NoError(t, inner.Put(ctx, "other"))
	pair, err := store.AtomicPut(ctx, "k", kv.WithString("v"))
	require.NoError(t, err)
	require.Equal(t, "k", pair.Key)
	pairs, err := inner.List(ctx, "")
	require.NoError(t, err)
	require.Equal(t, []string{"other", "p/k"}, keys(pairs))
	pairs, err = store.List(ctx, "")
	require.NoError(t, err)
	require.Equal(t, []string{"k"}, keys(pairs))

	_, err = store.AtomicPut(ctx, "k")
	conflict, ok := errors.AsType[*kv.ConflictError](err)
	require.True(t, ok)
	require.Equal(t, "k", conflict.Key)
	require.Equal(t, "k", conflict.Current.Key)
	_, err = store.Get(ctx, "gone")
	notFound, ok := errors.AsType[*kv.NotFoundError](err)
	require.True(t, ok)
	require.Equal(t, "gone", notFound.Key)
	require.ErrorIs(t, store.Put(ctx, ""), kv.ErrInvalidKey)
}

func TestPrefixedMapsWrappedErrors(t *testing.T) {
	t.Parallel()
	cause := errors.New("lost")
	store := kv.Prefixed(kv.Instrument(memkv.New(), func(context.Context, kv.Call, func(context.Context) error) error {
		return fmt.Errorf("hook: %w", &kv.UncertainError{Key: "p/k", Version: 7, Err: cause})
	}), "p/")
	err := store.Put(t.Context(), "k")
	require.ErrorIs(t, err, kv.ErrUncertain)
	require.ErrorIs(t, err, cause)
	uncertain, ok := errors.AsType[*kv.UncertainError](err)
	require.True(t, ok)
	require.Equal(t, "k", uncertain.Key)
	require.EqualValues(t, 7, uncertain.Version)
}

func TestAllReadsPagesOnDemand(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	pages := 0
	store := kv.Instrument(memkv.New(), func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op == "ListPage" {
			pages++
		}
		return next(ctx)
	})
	for i := range 10 {
		require.NoError(t, store.Put(ctx, fmt.Sprintf("a/%d", i)))
	}
	var got []string
	for pair, err := range kv.All(ctx, store, "a/", kv.WithLimit(3)) {
		require.NoError(t, err)
		if got = append(got, pair.Key); len(got) == 4 {
			break
		}
	}
	require.Equal(t, "a/0 a/1 a/2 a/3", strings.Join(got, " "))
	require.Equal(t, 2, pages)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := 0
	var last error
	for pair, err := range kv.All(ctx, store, "a/", kv.WithLimit(3)) {
		if err != nil {
			require.Nil(t, pair)
			last = err
			continue
		}
		if n++; n == 3 {
			cancel()
		}
	}
	require.Equal(t, 3, n)
	require.ErrorIs(t, last, context.Canceled)
}

func TestUpdateCountsExactly(t *testing.T) {
	t.Parallel()
	store := memkv.New()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				_, err := kv.Update(t.Context(), store, "n", func(current *kv.KVPair) ([]byte, error) {
					n := 0
					if current != nil {
						if _, err := fmt.Sscan(current.String(), &n); err != nil {
							return nil, err
						}
					}
					return fmt.Append(nil, n+1), nil
				}, kv.WithKeepTTL())
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	pair, err := store.Get(t.Context(), "n")
	require.NoError(t, err)
	require.Equal(t, "400", pair.String())
}

func TestUpdateKeepsFieldsAndExpiryUnlessItIsToldOtherwise(t *testing.T) {
	t.Parallel()
	store, fields := memkv.New(), kv.Fields{"size": int64(17), "raw": []byte("x")}
	start := func(*kv.KVPair) ([]byte, error) { return []byte("value"), nil }
	update := func(options ...kv.WriteOption) *kv.KVPair {
		_, err := kv.Update(t.Context(), store, "key", start, options...)
		require.NoError(t, err)
		pair, err := store.Get(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, "value", pair.String())
		return pair
	}
	require.NoError(t, store.Put(t.Context(), "key", kv.WithFields(fields), kv.WithTTL(time.Hour)))
	before, err := store.Get(t.Context(), "key")
	require.NoError(t, err)

	pair := update()
	require.Equal(t, fields, pair.Fields)
	require.Equal(t, before.Expires, pair.Expires)
	require.Equal(t, before.Expires, update(kv.WithKeepTTL()).Expires)

	pair = update(kv.WithTTL(2 * time.Hour))
	require.Equal(t, fields, pair.Fields)
	require.Greater(t, pair.Expires.Sub(before.Expires), 50*time.Minute)
	later := pair.Expires

	pair = update(kv.WithFields(kv.Fields{"size": int64(18)}))
	require.Equal(t, kv.Fields{"size": int64(18)}, pair.Fields)
	require.Equal(t, later, pair.Expires)
	require.Empty(t, update(kv.WithFields(nil)).Fields)

	require.NoError(t, store.Put(t.Context(), "key"))
	require.Zero(t, update().Expires, "for ever, as before")
	require.NoError(t, store.Delete(t.Context(), "key"))
	require.Zero(t, update(kv.WithKeepTTL()).Expires, "there is none to keep it from")
}

func TestUpdateStopsOnErrorsAndUnknownOutcomes(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	store := memkv.New()
	_, err := kv.Update(t.Context(), store, "k", func(*kv.KVPair) ([]byte, error) { return nil, boom })
	require.ErrorIs(t, err, boom)
	exists, err := store.Exists(t.Context(), "k")
	require.NoError(t, err)
	require.False(t, exists)

	calls := 0
	lossy := kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Op == "AtomicPut" {
			return &kv.UncertainError{Key: call.Key, Err: boom}
		}
		return next(ctx)
	})
	_, err = kv.Update(t.Context(), lossy, "k", func(*kv.KVPair) ([]byte, error) { calls++; return nil, nil })
	require.ErrorIs(t, err, kv.ErrUncertain)
	require.Equal(t, 1, calls)
}

func TestDeletePrefixSparesSiblings(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	store := memkv.New()
	for i := range 1030 { // more than a page
		require.NoError(t, store.Put(ctx, fmt.Sprintf("a/%d", i)))
	}
	for _, key := range []string{"a", "ab", "b/1"} {
		require.NoError(t, store.Put(ctx, key))
	}
	n, err := kv.DeletePrefix(ctx, store, "a/")
	require.NoError(t, err)
	require.Equal(t, 1030, n)
	pairs, err := store.List(ctx, "")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "ab", "b/1"}, keys(pairs))
	n, err = kv.DeletePrefix(ctx, store, "a/")
	require.NoError(t, err)
	require.Zero(t, n)
}

func keys(pairs []*kv.KVPair) []string {
	var keys []string
	for _, pair := range pairs {
		keys = append(keys, pair.Key)
	}
	return keys
}
