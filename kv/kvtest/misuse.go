package kvtest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

var misuseScenarios = []scenario{
	{"InvalidKeys", testInvalidKeys},
	{"InvalidPrefixes", testInvalidPrefixes},
	{"InvalidWriteOptions", testInvalidWriteOptions},
	{"InvalidReadOptions", testInvalidReadOptions},
	{"InvalidTokens", testInvalidTokens},
	{"InvalidPrevious", testInvalidPrevious},
	{"UnknownIndex", testUnknownIndex},
	{"ErrorsAreDisjoint", testErrorsAreDisjoint},
	{"EndedContext", testEndedContext},
	{"ContextEndsDuringAWrite", testContextEndsDuringAWrite},
	{"UseAfterClose", testUseAfterClose},
	{"CloseDuringUse", testCloseDuringUse},
}

// sentinels are all the errors of package kv, of which each error matches one.
var sentinels = []error{
	kv.ErrKeyNotFound, kv.ErrKeyExists, kv.ErrKeyModified, kv.ErrUncertain, kv.ErrClock, kv.ErrThrottled,
	kv.ErrUnavailable, kv.ErrRefused, kv.ErrTooLarge, kv.ErrInvalidKey,
	kv.ErrInvalidOption, kv.ErrReservedField, kv.ErrIndexNotSupported, kv.ErrUnsupported, kv.ErrFormat, kv.ErrClosed,
}

// only requires that err matches want and no other sentinel.
func only(t *testing.T, err, want error) {
	t.Helper()
	require.ErrorIs(t, err, want)
	for _, sentinel := range sentinels {
		if !errors.Is(sentinel, want) {
			require.NotErrorIs(t, err, sentinel)
		}
	}
}

// calls runs every method on key and returns their errors.
func (e *env) calls(ctx context.Context, key string, previous *kv.KVPair) map[string]error {
	errs := map[string]error{
		"Put": e.store.Put(ctx, key), "Delete": e.store.Delete(ctx, key),
		"AtomicDelete": e.store.AtomicDelete(ctx, key, previous),
	}
	_, errs["Get"] = e.store.Get(ctx, key)
	_, errs["Exists"] = e.store.Exists(ctx, key)
	_, errs["List"] = e.store.List(ctx, key)
	_, errs["ListPage"] = e.store.ListPage(ctx, key)
	_, errs["AtomicPut"] = e.store.AtomicPut(ctx, key)
	return errs
}

func testInvalidKeys(t *testing.T, e *env) {
	for _, key := range []string{"", strings.Repeat("k", kv.MaxKeySize+1), "bad\xffkey"} {
		for op, err := range e.calls(e.ctx, key, kv.NewPair(key, 1, nil, time.Time{}, nil)) {
			if key == "" && strings.HasPrefix(op, "List") {
				continue // the empty prefix is a valid one
			}
			require.Error(t, err, "%s %.20q", op, key)
			only(t, err, kv.ErrInvalidKey)
		}
	}
}

func testInvalidPrefixes(t *testing.T, e *env) {
	for _, prefix := range []string{strings.Repeat("k", kv.MaxKeySize+1), "bad\xff"} {
		_, err := e.store.List(e.ctx, prefix)
		only(t, err, kv.ErrInvalidKey)
	}
}

func testInvalidWriteOptions(t *testing.T, e *env) {
	for name, options := range map[string][]kv.WriteOption{
		"ttl 0":             {kv.WithTTL(0)},
		"ttl negative":      {kv.WithTTL(-time.Second)},
		"ttl too short":     {kv.WithTTL(time.Millisecond - 1)},
		"ttl too long":      {kv.WithTTL(math.MaxInt64)},
		"ttl and keep":      {kv.WithTTL(long), kv.WithKeepTTL()},
		"json":              {kv.WithJSON(func() {})},
		"sweep":             {kv.WithSweepAfter(time.Millisecond)},
		"sweep too late":    {kv.WithSweepAfter(math.MaxInt64)},
		"attempt too short": {kv.WithAttemptTimeout(time.Millisecond)},
		"attempt too long":  {kv.WithAttemptTimeout(math.MaxInt64)},
	} {
		err := e.store.Put(e.ctx, e.key("k"), options...)
		require.Error(t, err, name)
		only(t, err, kv.ErrInvalidOption)
		_, err = e.store.AtomicPut(e.ctx, e.key("k"), options...)
		only(t, err, kv.ErrInvalidOption)
	}
	_, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithKeepTTL())
	only(t, err, kv.ErrInvalidOption)
	only(t, e.store.Put(e.ctx, e.key("k"), kv.WithPrevious(nil)), kv.ErrUnsupported)
	only(t, e.store.Delete(e.ctx, e.key("k"), kv.WithAttemptTimeout(0)), kv.ErrInvalidOption)
	e.absent(t, "k")
}

func testInvalidReadOptions(t *testing.T, e *env) {
	e.put(t, "k")
	for _, option := range []kv.ReadOption{kv.WithLimit(1), kv.WithStartKey(""), kv.WithStartAfter(e.key("k")),
		kv.Descending(), kv.WithoutValues(), kv.WithLocalIndex("i", "f")} {
		_, err := e.store.Get(e.ctx, e.key("k"), option)
		only(t, err, kv.ErrUnsupported)
		_, err = e.store.Exists(e.ctx, e.key("k"), option)
		only(t, err, kv.ErrUnsupported)
	}
	for _, option := range []kv.ReadOption{kv.WithLimit(0), kv.WithLimit(-1), kv.WithAttemptTimeout(0),
		kv.WithLocalIndex("", "f")} {
		_, err := e.store.List(e.ctx, e.prefix, option)
		only(t, err, kv.ErrInvalidOption)
		_, err = e.store.ListPage(e.ctx, e.prefix, option)
		only(t, err, kv.ErrInvalidOption)
	}
}

func testInvalidTokens(t *testing.T, e *env) {
	e.fill(t, "1", "2", "3")
	page, err := e.store.ListPage(e.ctx, e.prefix, kv.WithLimit(1))
	require.NoError(t, err)
	require.NotEmpty(t, page.Next)
	for _, options := range [][]kv.ReadOption{
		{kv.WithStartKey("nonsense")}, {kv.WithStartKey("!")}, {kv.WithStartKey(e.key("1"))},
		{kv.WithStartKey(page.Next), kv.Descending()},
	} {
		_, err := e.store.ListPage(e.ctx, e.prefix, options...)
		only(t, err, kv.ErrInvalidOption)
		_, err = e.store.List(e.ctx, e.prefix, options...)
		only(t, err, kv.ErrInvalidOption)
	}
	_, err = e.store.ListPage(e.ctx, e.key("another"), kv.WithStartKey(page.Next))
	only(t, err, kv.ErrInvalidOption)
}

func testInvalidPrevious(t *testing.T, e *env) {
	pair := e.create(t, "k")
	other := e.create(t, "other")
	for _, previous := range []*kv.KVPair{other, kv.NewPair(e.key("k"), 0, nil, time.Time{}, nil)} {
		_, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(previous))
		only(t, err, kv.ErrInvalidOption)
		only(t, e.store.AtomicDelete(e.ctx, e.key("k"), previous), kv.ErrInvalidOption)
	}
	only(t, e.store.AtomicDelete(e.ctx, e.key("k"), nil), kv.ErrInvalidOption)
	samePair(t, pair, e.get(t, "k"))
}

func testUnknownIndex(t *testing.T, e *env) {
	_, err := e.store.ListPage(e.ctx, "", kv.WithLocalIndex("no-such-index", "f"))
	if !errors.Is(err, kv.ErrIndexNotSupported) {
		t.Logf("kvtest: the driver has indexes, which are for its own tests: %v", err)
		require.Error(t, err)
		return
	}
	only(t, err, kv.ErrIndexNotSupported)
	_, err = e.store.List(e.ctx, "", kv.WithGlobalIndex("no-such-index", "p", "v", "f"), kv.EventuallyConsistent())
	only(t, err, kv.ErrIndexNotSupported)
}

func testErrorsAreDisjoint(t *testing.T, e *env) {
	pair := e.create(t, "k")
	e.put(t, "k")
	_, err := e.store.Get(e.ctx, e.key("absent"))
	only(t, err, kv.ErrKeyNotFound)
	_, err = e.store.AtomicPut(e.ctx, e.key("k"))
	only(t, err, kv.ErrKeyExists)
	_, err = e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(pair))
	only(t, err, kv.ErrKeyModified)
	only(t, e.store.AtomicDelete(e.ctx, e.key("k"), pair), kv.ErrKeyModified)
	require.NoError(t, e.store.Delete(e.ctx, e.key("k")))
	only(t, e.store.AtomicDelete(e.ctx, e.key("k"), pair), kv.ErrKeyModified)
	only(t, e.store.Put(e.ctx, e.key("k"), kv.WithBytes(make([]byte, kv.MaxPairSize))), kv.ErrTooLarge)
	only(t, e.store.Put(e.ctx, e.key("k"), kv.WithFields(kv.Fields{"id": 1})), kv.ErrReservedField)
}

func testEndedContext(t *testing.T, e *env) {
	before := e.create(t, "k", kv.WithString("v"))
	cancelled, cancel := context.WithCancel(e.ctx)
	cancel()
	expired, cancel := context.WithDeadline(e.ctx, time.Unix(0, 0))
	defer cancel()
	for ctx, want := range map[context.Context]error{cancelled: context.Canceled, expired: context.DeadlineExceeded} {
		for op, err := range e.calls(ctx, e.key("k"), before) {
			require.ErrorIs(t, err, want, op)
			for _, sentinel := range sentinels {
				require.NotErrorIs(t, err, sentinel, op)
			}
		}
		require.ErrorIs(t, e.store.Put(ctx, e.key("new")), want)
	}
	samePair(t, before, e.get(t, "k"))
	e.absent(t, "new")
}

// testContextEndsDuringAWrite requires that the error of each write tells
// whether its pair is there.
func testContextEndsDuringAWrite(t *testing.T, e *env) {
	applied, unknown := 0, 0
	for i := range 60 {
		ctx, cancel := clock.System.WithTimeout(e.ctx, time.Duration(i*i*5)*time.Microsecond)
		_, err := e.store.AtomicPut(ctx, e.key(fmt.Sprint(i)))
		cancel()
		switch {
		case err == nil:
			applied++
			continue
		case errors.Is(err, kv.ErrUncertain):
			unknown++
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	pairs, err := e.other.List(e.ctx, e.prefix)
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(pairs), applied)
	require.LessOrEqual(t, len(pairs), applied+unknown)
	e.put(t, "k")
}

func testUseAfterClose(t *testing.T, e *env) {
	closer, ok := kv.As[io.Closer](e.store)
	if !ok {
		t.Skip("kvtest: the driver has no Close")
	}
	pair := e.create(t, "k")
	require.NoError(t, closer.Close())
	require.NoError(t, closer.Close(), "a second Close")
	for op, err := range e.calls(e.ctx, e.key("k"), pair) {
		require.Error(t, err, op)
		only(t, err, kv.ErrClosed)
	}
	if e.other != e.store {
		samePair(t, pair, e.get(t, "k"))
	}
}

func testCloseDuringUse(t *testing.T, e *env) {
	closer, ok := kv.As[io.Closer](e.store)
	if !ok {
		t.Skip("kvtest: the driver has no Close")
	}
	ctx, cancel := clock.System.WithTimeout(e.ctx, e.waitLimit)
	defer cancel()
	var wg sync.WaitGroup
	for worker := range workers {
		wg.Go(func() {
			for i := 0; ; i++ {
				if ctx.Err() != nil {
					t.Error("a store that is closed takes writes")
					return
				}
				err := e.store.Put(e.ctx, e.key(fmt.Sprint(worker)), kv.WithString(fmt.Sprint(i)))
				if errors.Is(err, kv.ErrClosed) {
					return
				}
				if err != nil {
					t.Errorf("put: %v", err)
					return
				}
				if i == rounds { // the first to come so far close the store under the others
					if err := closer.Close(); err != nil {
						t.Errorf("close: %v", err)
					}
				}
			}
		})
	}
	wg.Wait()
	only(t, e.store.Put(e.ctx, e.key("k")), kv.ErrClosed)
}
