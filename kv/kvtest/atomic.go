package kvtest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

var atomicScenarios = []scenario{
	{"Create", testCreate},
	{"CreateOfAnExistingKey", testCreateOfAnExistingKey},
	{"PutAtItsVersion", testPutAtItsVersion},
	{"PutAtAnotherVersion", testPutAtAnotherVersion},
	{"PutOfAnAbsentKey", testPutOfAnAbsentKey},
	{"DeleteAtItsVersion", testDeleteAtItsVersion},
	{"DeleteAtAnotherVersion", testDeleteAtAnotherVersion},
	{"DeleteTwice", testDeleteTwice},
	{"VersionsGrowAcrossDeletion", testVersionsGrowAcrossDeletion},
	{"TheVersionCountsNotTheValue", testTheVersionCounts},
	{"AListedPairIsAPrevious", testAListedPairIsAPrevious},
	{"NilPreviousIsACreate", testNilPreviousIsACreate},
}

func testCreate(t *testing.T, e *env) {
	pair := e.create(t, "k", kv.WithString("v"))
	require.Equal(t, e.key("k"), pair.Key)
	require.Equal(t, "v", pair.String())
	require.NotZero(t, pair.Version)
	samePair(t, pair, e.get(t, "k"))
}

func testCreateOfAnExistingKey(t *testing.T, e *env) {
	first := e.create(t, "k", kv.WithString("first"), kv.WithFields(kv.Fields{"by": "first"}))
	pair, err := e.other.AtomicPut(e.ctx, e.key("k"), kv.WithString("second"))
	require.Nil(t, pair)
	lost := conflict(t, err, kv.ErrKeyExists)
	require.Equal(t, e.key("k"), lost.Key)
	require.Equal(t, first.Version, lost.Version)
	samePair(t, first, lost.Current)
	samePair(t, first, e.get(t, "k"))
}

func testPutAtItsVersion(t *testing.T, e *env) {
	pair := e.create(t, "k", kv.WithString("0"))
	for _, value := range []string{"1", "2", "2"} {
		next, err := e.other.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(pair), kv.WithString(value))
		require.NoError(t, err)
		require.Equal(t, value, next.String())
		require.Greater(t, next.Version, pair.Version)
		samePair(t, next, e.get(t, "k"))
		pair = next
	}
}

func testPutAtAnotherVersion(t *testing.T, e *env) {
	first := e.create(t, "k", kv.WithString("1"))
	second, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(first), kv.WithString("2"),
		kv.WithFields(kv.Fields{"n": 2}))
	require.NoError(t, err)
	never := kv.NewPair(e.key("k"), second.Version+1000, nil, second.Expires, nil)
	for _, previous := range []*kv.KVPair{first, never} {
		pair, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(previous), kv.WithString("3"))
		require.Nil(t, pair)
		lost := conflict(t, err, kv.ErrKeyModified)
		require.Equal(t, e.key("k"), lost.Key)
		require.Equal(t, second.Version, lost.Version)
		samePair(t, second, lost.Current)
		samePair(t, second, e.get(t, "k"))
	}
}

func testPutOfAnAbsentKey(t *testing.T, e *env) {
	never := kv.NewPair(e.key("k"), 1, nil, e.create(t, "other").Expires, nil)
	pair, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(never))
	require.Nil(t, pair)
	require.Nil(t, conflict(t, err, kv.ErrKeyModified).Current)
	require.Nil(t, conflict(t, e.store.AtomicDelete(e.ctx, e.key("k"), never), kv.ErrKeyModified).Current)
	e.absent(t, "k")
}

func testDeleteAtItsVersion(t *testing.T, e *env) {
	pair := e.create(t, "k")
	require.NoError(t, e.other.AtomicDelete(e.ctx, e.key("k"), pair))
	e.absent(t, "k")
}

func testDeleteAtAnotherVersion(t *testing.T, e *env) {
	first := e.create(t, "k", kv.WithString("1"))
	e.put(t, "k", kv.WithString("2"))
	second := e.get(t, "k")
	lost := conflict(t, e.store.AtomicDelete(e.ctx, e.key("k"), first), kv.ErrKeyModified)
	require.Equal(t, second.Version, lost.Version)
	samePair(t, second, lost.Current)
	samePair(t, second, e.get(t, "k"))
}

func testDeleteTwice(t *testing.T, e *env) {
	pair := e.create(t, "k")
	require.NoError(t, e.store.AtomicDelete(e.ctx, e.key("k"), pair))
	lost := conflict(t, e.store.AtomicDelete(e.ctx, e.key("k"), pair), kv.ErrKeyModified)
	require.Nil(t, lost.Current)
}

func testVersionsGrowAcrossDeletion(t *testing.T, e *env) {
	old := []*kv.KVPair{e.create(t, "k", kv.WithString("same"))}
	for _, remove := range []func(*kv.KVPair) error{
		func(*kv.KVPair) error { return e.store.Delete(e.ctx, e.key("k")) },
		func(p *kv.KVPair) error { return e.other.AtomicDelete(e.ctx, e.key("k"), p) },
		func(*kv.KVPair) error { return e.other.Delete(e.ctx, e.key("k")) },
	} {
		last := old[len(old)-1]
		require.NoError(t, remove(last))
		again := e.create(t, "k", kv.WithString("same"))
		require.Greater(t, again.Version, last.Version)
		for _, stale := range old {
			_, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(stale))
			samePair(t, again, conflict(t, err, kv.ErrKeyModified).Current)
			samePair(t, again, conflict(t, e.store.AtomicDelete(e.ctx, e.key("k"), stale), kv.ErrKeyModified).Current)
		}
		old = append(old, again)
	}
	require.NoError(t, e.store.Delete(e.ctx, e.key("k")))
	e.put(t, "k")
	require.Greater(t, e.get(t, "k").Version, old[len(old)-1].Version)
}

func testTheVersionCounts(t *testing.T, e *env) {
	pair := e.create(t, "k", kv.WithString("v"))
	changed := kv.NewPair(pair.Key, pair.Version, []byte("another"), pair.Expires, kv.Fields{"x": "y"})
	_, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(changed), kv.WithString("w"))
	require.NoError(t, err)
	require.Equal(t, "w", e.get(t, "k").String())
}

func testAListedPairIsAPrevious(t *testing.T, e *env) {
	e.put(t, "k", kv.WithString("v"))
	pairs, err := e.other.List(e.ctx, e.prefix, kv.WithoutValues())
	require.NoError(t, err)
	require.Len(t, pairs, 1)
	next, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(pairs[0]), kv.WithString("w"))
	require.NoError(t, err)
	require.NoError(t, e.store.AtomicDelete(e.ctx, e.key("k"), next))
}

func testNilPreviousIsACreate(t *testing.T, e *env) {
	pair := e.create(t, "k", kv.WithPrevious(nil))
	_, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(nil))
	samePair(t, pair, conflict(t, err, kv.ErrKeyExists).Current)
}
