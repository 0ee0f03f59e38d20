package kvtest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

var basicScenarios = []scenario{
	{"PutGetExistsDelete", testPutGetExistsDelete},
	{"MissingKey", testMissingKey},
	{"PutGivesAGreaterVersion", testPutGivesAGreaterVersion},
	{"EmptyValueIsAValue", testEmptyValueIsAValue},
	{"EveryByteSurvives", testEveryByteSurvives},
	{"JSONDecodes", testJSONDecodes},
	{"LargestPairFits", testLargestPairFits},
	{"TooLargePairIsRefused", testTooLargePairIsRefused},
	{"LongestKeyFits", testLongestKeyFits},
	{"OddKeys", testOddKeys},
	{"ValuesAreCopied", testValuesAreCopied},
	{"ReadOptionsOfGet", testReadOptionsOfGet},
}

func testPutGetExistsDelete(t *testing.T, e *env) {
	names := []string{"a", "a/", "a/b/", "a/b/c"}
	for _, name := range names {
		e.put(t, name, kv.WithString("value of "+name))
	}
	for i, name := range names {
		pair := e.get(t, name)
		require.Equal(t, "value of "+name, pair.String())
		require.True(t, pair.Expires.IsZero())
		require.Nil(t, pair.Fields)
		exists, err := e.other.Exists(e.ctx, e.key(name))
		require.NoError(t, err)
		require.True(t, exists)
		require.NoError(t, e.store.Delete(e.ctx, e.key(name)))
		e.absent(t, name)
		for _, later := range names[i+1:] {
			e.get(t, later)
		}
	}
}

func testMissingKey(t *testing.T, e *env) {
	e.absent(t, "missing")
	require.NoError(t, e.store.Delete(e.ctx, e.key("missing")))
	e.absent(t, "missing")
}

func testPutGivesAGreaterVersion(t *testing.T, e *env) {
	e.put(t, "k", kv.WithString("1"))
	first := e.get(t, "k")
	e.put(t, "k", kv.WithString("2"))
	second := e.get(t, "k")
	require.Greater(t, second.Version, first.Version)
	require.Equal(t, "2", second.String())
	_, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(first))
	samePair(t, second, conflict(t, err, kv.ErrKeyModified).Current)
	written, err := e.store.AtomicPut(e.ctx, e.key("k"), kv.WithPrevious(second), kv.WithString("3"))
	require.NoError(t, err)
	samePair(t, written, e.get(t, "k"))
}

func testEmptyValueIsAValue(t *testing.T, e *env) {
	for name, options := range map[string][]kv.WriteOption{
		"none": nil, "nil": {kv.WithBytes(nil)}, "bytes": {kv.WithBytes([]byte{})}, "string": {kv.WithString("")},
	} {
		e.put(t, name, kv.WithString("something"))
		e.put(t, name, options...)
		pair := e.get(t, name)
		require.NotNil(t, pair.Bytes(), name)
		require.Empty(t, pair.Bytes(), name)
		created := e.create(t, name+" created", options...)
		require.Empty(t, created.Bytes(), name)
		samePair(t, created, e.get(t, name+" created"))
	}
}

func testEveryByteSurvives(t *testing.T, e *env) {
	value := make([]byte, 256)
	for i := range value {
		value[i] = byte(i)
	}
	e.put(t, "bytes", kv.WithBytes(value))
	require.Equal(t, value, e.get(t, "bytes").Bytes())
	e.put(t, "string", kv.WithString(string(value)))
	require.Equal(t, value, e.get(t, "string").Bytes())
	e.put(t, "text", kv.WithString("žluťoučký \x00 kůň 🐎"))
	require.Equal(t, "žluťoučký \x00 kůň 🐎", e.get(t, "text").String())
}

func testJSONDecodes(t *testing.T, e *env) {
	type job struct {
		Name string
		Try  int
	}
	e.put(t, "job", kv.WithJSON(job{"import", 3}))
	var got job
	require.NoError(t, e.get(t, "job").Decode(&got))
	require.Equal(t, job{"import", 3}, got)
	require.Error(t, e.get(t, "job").Decode(new(int)))
}

func testLargestPairFits(t *testing.T, e *env) {
	value := bytes.Repeat([]byte{0xfe}, kv.MaxPairSize-e.overhead-len(e.key("big")))
	e.put(t, "big", kv.WithBytes(value))
	require.True(t, bytes.Equal(value, e.get(t, "big").Bytes()))
}

func testTooLargePairIsRefused(t *testing.T, e *env) {
	fits := kv.MaxPairSize - e.overhead - len(e.key("big"))
	require.ErrorIs(t, e.store.Put(e.ctx, e.key("big"), kv.WithBytes(make([]byte, fits+1))), kv.ErrTooLarge)
	_, err := e.store.AtomicPut(e.ctx, e.key("big"), kv.WithBytes(make([]byte, fits)), kv.WithFields(kv.Fields{"f": "x"}))
	require.ErrorIs(t, err, kv.ErrTooLarge)
	e.absent(t, "big")
}

func testLongestKeyFits(t *testing.T, e *env) {
	longest := strings.Repeat("k", kv.MaxKeySize-e.overhead-len(e.prefix))
	e.put(t, longest, kv.WithString("v"))
	require.Equal(t, "v", e.get(t, longest).String())
	require.ErrorIs(t, e.store.Put(e.ctx, e.key(longest+"k")), kv.ErrInvalidKey)
}

// oddNames are keys that some store or other gets wrong, in byte order.
var oddNames = []string{
	" ", "\"", "#", "$", "%", "%25", "'", "*", "..", "/", "//", ":", "A", "\\", "_x", "a", "a\x00", "a\x00b", "a/", "ab",
	"\x7f", "é", "\uffff", "😀",
}

func testOddKeys(t *testing.T, e *env) {
	for _, name := range oddNames {
		e.put(t, name, kv.WithString(name))
	}
	for _, name := range oddNames {
		require.Equal(t, name, e.get(t, name).String())
	}
	pairs, err := e.other.List(e.ctx, e.prefix)
	require.NoError(t, err)
	var got []string
	for _, pair := range pairs {
		got = append(got, strings.TrimPrefix(pair.Key, e.prefix))
	}
	require.Equal(t, oddNames, got)
}

func testValuesAreCopied(t *testing.T, e *env) {
	value, blob := []byte("value"), []byte("blob")
	e.put(t, "put", kv.WithBytes(value), kv.WithFields(kv.Fields{"blob": blob}))
	created := e.create(t, "created", kv.WithBytes(value), kv.WithFields(kv.Fields{"blob": blob}))
	value[0], blob[0] = 'X', 'X'
	created.Bytes()[1] = 'Y'
	created.Fields["blob"].([]byte)[1] = 'Y'
	created.Fields["more"] = "Y"
	for _, name := range []string{"put", "created"} {
		for range 2 {
			pair := e.get(t, name)
			require.Equal(t, "value", pair.String())
			require.Equal(t, kv.Fields{"blob": []byte("blob")}, pair.Fields)
			pair.Bytes()[0] = 'Z'
			pair.Fields["blob"].([]byte)[0] = 'Z'
			delete(pair.Fields, "blob")
		}
	}
	_, err := e.store.AtomicPut(e.ctx, e.key("created"))
	current := conflict(t, err, kv.ErrKeyExists).Current
	current.Bytes()[0] = 'Z'
	current.Fields["more"] = "Z"
	pairs, err := e.store.List(e.ctx, e.prefix)
	require.NoError(t, err)
	pairs[0].Bytes()[0] = 'Z'
	require.Equal(t, "value", e.get(t, "created").String())
	require.Len(t, e.get(t, "created").Fields, 1)
}

func testReadOptionsOfGet(t *testing.T, e *env) {
	e.put(t, "k", kv.WithString("v"))
	e.until(t, "an eventually consistent read never sees the pair", func() bool {
		pair, err := e.other.Get(e.ctx, e.key("k"), kv.EventuallyConsistent())
		if err != nil {
			require.ErrorIs(t, err, kv.ErrKeyNotFound)
			return false
		}
		require.Equal(t, "v", pair.String())
		return true
	})
	pair, err := e.store.Get(e.ctx, e.key("k"), kv.WithAttemptTimeout(time.Minute))
	require.NoError(t, err)
	require.Equal(t, "v", pair.String())
	require.NoError(t, e.store.Put(e.ctx, e.key("k"), kv.WithAttemptTimeout(time.Minute), kv.WithSweepAfter(time.Hour)))
	require.NoError(t, e.store.Delete(e.ctx, e.key("k"), kv.WithAttemptTimeout(time.Minute)))
}
