package kvtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

var processScenarios = []scenario{{"TwoProcessesShare", testTwoProcesses}}

const peerIncrements = 50

// What each process writes for the other: every byte, and a field of each type.
var (
	peerValue  = []byte{0, 0xff, 'v', 0xfe}
	peerFields = kv.Fields{"string": "text", "bytes": []byte{0, 255}, "int": int64(-7), "float": 0.5}
)

// Peer is the second process's part of the suite: the program that
// Harness.Process starts calls it, with the prefix that Process got, on a store
// of its own on the same data. An error is what the store did wrong. The
// program says it and exits with a status that is not 0; the harness logs what
// it said, which the suite cannot see.
func Peer(ctx context.Context, store kv.Store, prefix string) error {
	pair, err := store.Get(ctx, prefix+"mine")
	if err != nil {
		return fmt.Errorf("another process's pair: %w", err)
	}
	if !bytes.Equal(pair.Bytes(), peerValue) || !maps.EqualFunc(pair.Fields, peerFields, sameField) {
		return fmt.Errorf("another process's pair is %q with fields %v", pair.Bytes(), pair.Fields)
	}
	_, err = store.AtomicPut(ctx, prefix+"mine")
	conflict, ok := errors.AsType[*kv.ConflictError](err)
	if !ok || conflict.Current == nil || conflict.Current.Version != pair.Version {
		return fmt.Errorf("creating another process's pair, which is at version %d: %w", pair.Version, err)
	}
	if err := store.AtomicDelete(ctx, prefix+"taken",
		kv.NewPair(prefix+"taken", pair.Version, nil, pair.Expires, nil)); !errors.Is(err, kv.ErrKeyModified) {
		return fmt.Errorf("deleting another process's pair at a wrong version: %w", err)
	}
	if err := increment(ctx, store, prefix+"n"); err != nil {
		return err
	}
	_, err = store.AtomicPut(ctx, prefix+"yours", kv.WithBytes(peerValue), kv.WithFields(peerFields))
	return err
}

// increment counts a pair up.
func increment(ctx context.Context, store kv.Store, key string) error {
	for range peerIncrements {
		_, err := kv.Update(ctx, store, key, func(current *kv.KVPair) ([]byte, error) {
			if current == nil {
				return []byte("1"), nil
			}
			n, err := strconv.Atoi(current.String())
			return strconv.AppendInt(nil, int64(n+1), 10), err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sameField compares fields as a store returns them.
func sameField(a, b any) bool {
	if raw, ok := a.([]byte); ok {
		other, ok := b.([]byte)
		return ok && bytes.Equal(raw, other)
	}
	return a == b
}

func testTwoProcesses(t *testing.T, e *env) {
	if e.harness.Process == nil {
		t.Skip("kvtest: the harness has no Process")
	}
	e.put(t, "taken")
	mine := e.create(t, "mine", kv.WithBytes(peerValue), kv.WithFields(peerFields))
	wait := e.harness.Process(t, e.store, e.prefix)
	require.NoError(t, increment(e.ctx, e.store, e.key("n")))
	require.NoError(t, wait(), "how the other process ended; what it said is in the log if the harness keeps it")
	require.Equal(t, strconv.Itoa(2*peerIncrements), e.get(t, "n").String())
	samePair(t, mine, e.get(t, "mine"))
	yours := e.get(t, "yours")
	require.Equal(t, peerValue, yours.Bytes())
	require.Equal(t, peerFields, yours.Fields)
	_, err := e.store.AtomicPut(e.ctx, e.key("yours"), kv.WithPrevious(yours))
	require.NoError(t, err)
}
