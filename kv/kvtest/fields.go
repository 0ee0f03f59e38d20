package kvtest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

var fieldScenarios = []scenario{
	{"EveryTypeSurvives", testFieldTypes},
	{"PutMerges", testPutMergesFields},
	{"AtomicPutReplaces", testAtomicPutReplacesFields},
	{"OfADeletedPairAreGone", testFieldsOfADeletedPair},
	{"Refused", testFieldsRefused},
}

func testFieldTypes(t *testing.T, e *env) {
	given := kv.Fields{
		"string": "text", "empty": "", "odd name % 🐎": "x", "nul \x00": "\x00 \x1a0 \x1a", "bytes": []byte{0, 255},
		"int": 7, "uint8": uint8(8),
		"negative": int64(-1 << 63), "float": 1.5, "whole": 2.0, "small": -1e-100, "float32": float32(0.25),
	}
	want := kv.Fields{
		"string": "text", "empty": "", "odd name % 🐎": "x", "nul \x00": "\x00 \x1a0 \x1a", "bytes": []byte{0, 255},
		"int": int64(7), "uint8": int64(8),
		"negative": int64(-1 << 63), "float": 1.5, "whole": int64(2), "small": -1e-100, "float32": 0.25,
	}
	created := e.create(t, "k", kv.WithFields(given))
	require.Equal(t, want, created.Fields)
	require.Equal(t, want, e.get(t, "k").Fields)
	pairs, err := e.other.List(e.ctx, e.key("k"))
	require.NoError(t, err)
	require.Len(t, pairs, 1)
	require.Equal(t, want, pairs[0].Fields)
}

func testPutMergesFields(t *testing.T, e *env) {
	e.put(t, "k", kv.WithString("1"), kv.WithFields(kv.Fields{"a": 1, "b": 2}))
	e.put(t, "k", kv.WithString("2"), kv.WithFields(kv.Fields{"b": "two", "c": 3}))
	want := kv.Fields{"a": int64(1), "b": "two", "c": int64(3)}
	require.Equal(t, want, e.get(t, "k").Fields)
	e.put(t, "k", kv.WithString("3"))
	require.Equal(t, want, e.get(t, "k").Fields)
	require.Equal(t, "3", e.get(t, "k").String())
}

func testAtomicPutReplacesFields(t *testing.T, e *env) {
	pair := e.create(t, "k", kv.WithFields(kv.Fields{"a": 1, "b": 2}))
	pair, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(pair), kv.WithFields(kv.Fields{"b": 3}))
	require.NoError(t, err)
	require.Equal(t, kv.Fields{"b": int64(3)}, pair.Fields)
	samePair(t, pair, e.get(t, "k"))
	pair, err = e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(pair))
	require.NoError(t, err)
	require.Nil(t, pair.Fields)
	samePair(t, pair, e.get(t, "k"))
}

func testFieldsOfADeletedPair(t *testing.T, e *env) {
	pair := e.create(t, "atomic", kv.WithFields(kv.Fields{"a": 1}))
	require.NoError(t, e.store.AtomicDelete(e.ctx, e.key("atomic"), pair))
	e.put(t, "blind", kv.WithFields(kv.Fields{"a": 1}))
	require.NoError(t, e.store.Delete(e.ctx, e.key("blind")))
	for _, name := range []string{"atomic", "blind"} {
		e.put(t, name, kv.WithFields(kv.Fields{"b": 2}))
		require.Equal(t, kv.Fields{"b": int64(2)}, e.get(t, name).Fields)
	}
}

func testFieldsRefused(t *testing.T, e *env) {
	for _, name := range kv.ReservedFields() {
		require.ErrorIs(t, e.store.Put(e.ctx, e.key("k"), kv.WithFields(kv.Fields{name: 1})), kv.ErrReservedField, name)
	}
	for _, fields := range []kv.Fields{
		{"": 1}, {strings.Repeat("n", 256): 1}, {"bad\xff": 1}, {"a": true}, {"a": nil}, {"a": "bad\xff"},
		{"a": uint64(1 << 63)}, {"a": 1e126},
	} {
		require.ErrorIs(t, e.store.Put(e.ctx, e.key("k"), kv.WithFields(fields)), kv.ErrInvalidOption, "%v", fields)
		_, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithFields(fields))
		require.ErrorIs(t, err, kv.ErrInvalidOption, "%v", fields)
	}
	e.absent(t, "k")
}
