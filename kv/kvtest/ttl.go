package kvtest

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

var ttlScenarios = []scenario{
	{"ExpiresIsWhenItGoes", testExpires},
	{"SubSecondTTLIsAliveAtOnce", testSubSecondTTL},
	{"TheLongestTTLIsKept", testLongestTTL},
	{"AnExpiredPairIsAbsentEverywhere", testExpiredPairIsAbsent},
	{"PutClearsIt", testPutClearsTTL},
	{"KeepTTLKeepsIt", testKeepTTL},
	{"AtomicPutSetsItAnew", testAtomicPutSetsTTL},
	{"CreateOverAnExpiredPair", testCreateOverExpired},
	{"PutOverAnExpiredPair", testPutOverExpired},
	{"AnExpiredPairIsNoPrevious", testExpiredIsNoPrevious},
	{"ListingsSkipExpiredPairs", testListingsSkipExpired},
}

// short is a TTL that is over soon; long is one that is not over before any test is.
const (
	short = 40 * time.Millisecond
	long  = time.Hour
)

func testExpires(t *testing.T, e *env) {
	before := clock.System.Now().Wall.Truncate(time.Millisecond)
	pair := e.create(t, "k", kv.WithTTL(long+999*time.Microsecond))
	after := clock.System.Now().Wall
	require.False(t, pair.Expires.Before(before.Add(long)), "%v, written after %v", pair.Expires, before)
	require.False(t, pair.Expires.After(after.Add(long+time.Millisecond)), "%v, written before %v", pair.Expires, after)
	require.Zero(t, pair.Expires.Nanosecond()%int(time.Millisecond))
	samePair(t, pair, e.get(t, "k"))
}

func testSubSecondTTL(t *testing.T, e *env) {
	for ttl := 100 * time.Millisecond; ; ttl *= 2 {
		start := clock.System.Now()
		e.put(t, "k", kv.WithTTL(ttl))
		pair, err := e.other.Get(e.ctx, e.key("k"))
		if clock.System.Now().Since(start) < ttl {
			require.NoError(t, err)
			require.False(t, pair.Expires.IsZero())
			break
		}
		require.Less(t, ttl, 20*time.Second, "the store is too slow to tell")
	}
}

func testLongestTTL(t *testing.T, e *env) {
	start := clock.System.Now().Wall
	e.put(t, "put", kv.WithTTL(kv.MaxTTL), kv.WithSweepAfter(kv.MaxTTL))
	e.put(t, "put", kv.WithKeepTTL())
	first := e.create(t, "swapped", kv.WithTTL(kv.MaxTTL), kv.WithSweepAfter(kv.MaxTTL))
	keep := []kv.WriteOption{kv.WithPrevious(first), kv.WithKeepTTL(), kv.WithSweepAfter(kv.MaxTTL)}
	_, err := e.store.AtomicPut(e.ctx, e.key("swapped"), keep...)
	require.NoError(t, err)
	for _, name := range []string{"put", "swapped"} {
		require.WithinDuration(t, start.Add(kv.MaxTTL), e.get(t, name).Expires, scenarioBound*e.waitLimit)
	}
	pairs, err := e.other.List(e.ctx, e.prefix, kv.WithLimit(math.MaxInt))
	require.NoError(t, err)
	require.Len(t, pairs, 2)
}

func testExpiredPairIsAbsent(t *testing.T, e *env) {
	e.put(t, "put", kv.WithString("v"), kv.WithTTL(short))
	e.create(t, "created", kv.WithString("v"), kv.WithTTL(short))
	for _, name := range []string{"put", "created"} {
		e.expire(t, name)
		e.absent(t, name)
		require.NoError(t, e.store.Delete(e.ctx, e.key(name)))
		e.absent(t, name)
	}
}

func testPutClearsTTL(t *testing.T, e *env) {
	e.put(t, "k", kv.WithTTL(long))
	require.False(t, e.get(t, "k").Expires.IsZero())
	e.put(t, "k")
	require.True(t, e.get(t, "k").Expires.IsZero())
}

func testKeepTTL(t *testing.T, e *env) {
	e.put(t, "k", kv.WithString("1"), kv.WithTTL(long))
	first := e.get(t, "k")
	e.put(t, "k", kv.WithString("2"), kv.WithKeepTTL())
	second := e.get(t, "k")
	require.Equal(t, "2", second.String())
	require.True(t, first.Expires.Equal(second.Expires))
	third, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(second), kv.WithString("3"), kv.WithKeepTTL())
	require.NoError(t, err)
	require.True(t, first.Expires.Equal(third.Expires))
	samePair(t, third, e.get(t, "k"))

	e.put(t, "fresh", kv.WithString("v"), kv.WithKeepTTL())
	require.True(t, e.get(t, "fresh").Expires.IsZero())
	require.Equal(t, "v", e.get(t, "fresh").String())
	e.put(t, "fresh", kv.WithString("w"), kv.WithKeepTTL())
	require.True(t, e.get(t, "fresh").Expires.IsZero())
}

func testAtomicPutSetsTTL(t *testing.T, e *env) {
	first := e.create(t, "k", kv.WithTTL(long))
	second, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(first), kv.WithTTL(2*long))
	require.NoError(t, err)
	require.True(t, second.Expires.After(first.Expires.Add(long/2)))
	third, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(second))
	require.NoError(t, err)
	require.True(t, third.Expires.IsZero())
	samePair(t, third, e.get(t, "k"))
}

func testCreateOverExpired(t *testing.T, e *env) {
	old := e.create(t, "k", kv.WithString("old"), kv.WithTTL(short), kv.WithFields(kv.Fields{"a": 1}))
	e.expire(t, "k")
	pair := e.create(t, "k", kv.WithString("new"))
	require.Greater(t, pair.Version, old.Version)
	require.True(t, pair.Expires.IsZero())
	samePair(t, pair, e.get(t, "k"))
}

func testPutOverExpired(t *testing.T, e *env) {
	for name, options := range map[string][]kv.WriteOption{"plain": nil, "keep": {kv.WithKeepTTL()}} {
		old := e.create(t, name, kv.WithTTL(short), kv.WithFields(kv.Fields{"a": 1}))
		e.expire(t, name)
		e.put(t, name, append(options, kv.WithFields(kv.Fields{"b": 2}))...)
		pair := e.get(t, name)
		require.Greater(t, pair.Version, old.Version)
		require.Equal(t, kv.Fields{"b": int64(2)}, pair.Fields, "%s: fields of an expired pair came back", name)
		require.True(t, pair.Expires.IsZero(), name)
	}
}

func testExpiredIsNoPrevious(t *testing.T, e *env) {
	old := e.create(t, "k", kv.WithTTL(short))
	e.expire(t, "k")
	for _, options := range [][]kv.WriteOption{nil, {kv.WithKeepTTL()}, {kv.WithTTL(long)}} {
		_, err := e.store.AtomicPut(e.ctx, e.key("k"), append(options, kv.WithPrevious(old))...)
		require.Nil(t, conflict(t, err, kv.ErrKeyModified).Current)
	}
	require.Nil(t, conflict(t, e.store.AtomicDelete(e.ctx, e.key("k"), old), kv.ErrKeyModified).Current)
	e.absent(t, "k")
}

func testListingsSkipExpired(t *testing.T, e *env) {
	for _, name := range []string{"1", "3", "4", "5", "7"} {
		e.put(t, name, kv.WithTTL(short))
	}
	for _, name := range []string{"2", "6"} {
		e.put(t, name, kv.WithTTL(long))
	}
	for _, name := range []string{"1", "3", "4", "5", "7"} {
		e.expire(t, name)
	}
	want := []string{e.key("2"), e.key("6")}
	pairs, err := e.other.List(e.ctx, e.prefix)
	require.NoError(t, err)
	require.Equal(t, want, keysOf(pairs))
	pairs, err = e.other.List(e.ctx, e.prefix, kv.WithLimit(2))
	require.NoError(t, err)
	require.Equal(t, want, keysOf(pairs), "a limit counts live pairs")
	require.Equal(t, want, keysOf(pagesOf(t, e, e.other, e.prefix, kv.WithLimit(1))))
}
