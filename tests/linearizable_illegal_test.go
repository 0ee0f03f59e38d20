package tests_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/memkv"
)

// The words of the histories below. Operations follow each other unless during says otherwise.

func get(seen string, version uint64) kvtest.Operation {
	return kvtest.Operation{Op: "Get", Seen: seen, Version: version, Outcome: kvtest.Applied}
}

func put(value string) kvtest.Operation {
	return kvtest.Operation{Op: "Put", Value: value, Outcome: kvtest.Applied}
}

func del() kvtest.Operation { return kvtest.Operation{Op: "Delete", Outcome: kvtest.Applied} }

// swap is an AtomicPut that was applied, with previous 0 a create.
func swap(previous uint64, value string, version uint64) kvtest.Operation {
	return kvtest.Operation{Op: "AtomicPut", Previous: previous, Value: value, Seen: value, Version: version,
		Outcome: kvtest.Applied}
}

func remove(previous uint64) kvtest.Operation {
	return kvtest.Operation{Op: "AtomicDelete", Previous: previous, Outcome: kvtest.Applied}
}

// refused makes op one that lost to a pair.
func refused(op kvtest.Operation, seen string, version uint64) kvtest.Operation {
	op.Outcome, op.Seen, op.Version = kvtest.Refused, seen, version
	return op
}

// unknown makes op one without an answer.
func unknown(op kvtest.Operation) kvtest.Operation {
	op.Outcome, op.Seen, op.Returned = kvtest.Unknown, "", kvtest.Never
	return op
}

// during lets op begin n operations earlier.
func during(n int, op kvtest.Operation) kvtest.Operation {
	op.Called = -time.Duration(2 * n)
	return op
}

// sequence gives the operations their instants.
func sequence(ops ...kvtest.Operation) []kvtest.Operation {
	for i := range ops {
		ops[i].Key = "k"
		ops[i].Called += time.Duration(2 * i)
		if ops[i].Returned != kvtest.Never {
			ops[i].Returned = time.Duration(2*i + 1)
		}
	}
	return ops
}

var illegal = map[string][]kvtest.Operation{
	"a stale read":                        {put("a"), put("b"), get("a", 1)},
	"a read of what is not yet written":   {get("a", 1), put("a")},
	"an acknowledged write is lost":       {put("a"), get("", 0)},
	"a delete is undone":                  {swap(0, "a", 1), del(), get("a", 1)},
	"reads go back":                       {put("a"), during(0, unknown(put("b"))), get("b", 2), get("a", 1)},
	"two creates win":                     {swap(0, "a", 1), during(1, swap(0, "b", 2))},
	"two swaps win":                       {swap(0, "a", 1), swap(1, "b", 2), during(1, swap(1, "c", 3))},
	"two deletes win":                     {swap(0, "a", 1), remove(1), during(1, remove(1))},
	"a swap at an old version":            {swap(0, "a", 1), put("b"), swap(1, "c", 3)},
	"a create over a pair":                {put("a"), swap(0, "b", 2)},
	"a swap of nothing":                   {swap(0, "a", 1), del(), swap(1, "b", 2)},
	"a version comes again":               {swap(0, "a", 5), remove(5), swap(0, "b", 5)},
	"a version falls":                     {swap(0, "a", 5), del(), swap(0, "b", 4)},
	"a blind write takes an old version":  {swap(0, "a", 5), put("b"), get("b", 5)},
	"a version changes by itself":         {put("a"), get("a", 1), get("a", 2)},
	"a refused swap had the version":      {swap(0, "a", 1), refused(swap(1, "b", 0), "a", 1)},
	"a refused create had nothing before": {swap(0, "a", 1), del(), refused(swap(0, "b", 0), "", 0)},
	"a refused write is applied":          {swap(0, "a", 1), refused(swap(0, "b", 0), "a", 1), get("b", 2)},
	"a conflict shows an old pair":        {swap(0, "a", 1), swap(1, "b", 2), refused(swap(0, "c", 0), "a", 1)},
	"an unknown swap at an old version":   {swap(0, "a", 1), swap(1, "b", 2), unknown(swap(1, "c", 3)), get("c", 3)},
	"an unknown create over a pair":       {put("a"), unknown(swap(0, "b", 2)), get("b", 2)},
	"an unknown create lands twice":       {unknown(swap(0, "a", 2)), get("a", 2), remove(2), get("a", 2)},
	"an unknown write lands before it is": {get("a", 1), unknown(put("a"))},
	"a wrong pair is returned":            {{Op: "AtomicPut", Value: "a", Seen: "b", Version: 1, Outcome: kvtest.Applied}},
}

var legal = map[string][]kvtest.Operation{
	"one after the other": {get("", 0), swap(0, "a", 1), swap(1, "b", 2), get("b", 2), remove(2),
		swap(0, "c", 4), del(), get("", 0)},
	"a read beside a write":             {put("a"), put("b"), during(1, get("a", 1)), get("b", 2)},
	"a blind write's version is found":  {put("a"), swap(7, "b", 8), refused(remove(7), "b", 8)},
	"a swap that lost to a delete":      {swap(0, "a", 1), del(), refused(swap(1, "b", 0), "", 0)},
	"an unknown write that never lands": {swap(0, "a", 1), unknown(swap(1, "b", 2)), get("a", 1), swap(1, "c", 2)},
	"an unknown write that lands late":  {swap(0, "a", 1), unknown(put("b")), get("a", 1), get("b", 2)},
	"an unknown write that is replaced": {swap(0, "a", 1), unknown(swap(1, "b", 2)), swap(2, "c", 3)},
	"an unknown write's version":        {unknown(swap(0, "a", 9)), get("a", 9)},
	"an unknown delete":                 {swap(0, "a", 1), unknown(remove(1)), get("a", 1), swap(0, "b", 2)},
}

func TestIllegalHistoriesAreFound(t *testing.T) {
	t.Parallel()
	for name, history := range illegal {
		require.Equal(t, porcupine.Illegal, judge(sequence(history...), time.Minute), name)
	}
	for name, history := range legal {
		require.Equal(t, porcupine.Ok, judge(sequence(history...), time.Minute), name)
	}
}

func TestAHistoryWithoutAVerdictInTimeIsNotLinearizable(t *testing.T) {
	t.Parallel()
	var hard []kvtest.Operation
	for i := range 40 {
		hard = append(hard, unknown(swap(0, fmt.Sprint(i), 0)), unknown(remove(uint64(i+1))))
	}
	hard = append(hard, get("never written", 1))
	require.Equal(t, porcupine.Unknown, judge(sequence(hard...), 100*time.Millisecond))
}

// stale answers every other Get of a key with what the one before it saw.
type stale struct {
	kv.Store
	mu   sync.Mutex
	last map[string]*kv.KVPair
}

func (s *stale) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	pair, err := s.Store.Get(ctx, key, options...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.last[key]; old != nil {
		delete(s.last, key)
		return old, nil
	}
	s.last[key] = pair
	return pair, err
}

// deaf answers the conflict of a swap with success.
type deaf struct{ kv.Store }

func (s deaf) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	pair, err := s.Store.AtomicPut(ctx, key, options...)
	settings, _ := kv.AtomicPutSettings(key, options)
	if conflict, ok := errors.AsType[*kv.ConflictError](err); ok && settings.Previous != nil {
		return kv.NewPair(key, conflict.Version+1, settings.Value, time.Time{}, nil), nil
	}
	return pair, err
}

func TestHistoriesOfBrokenStoresAreIllegal(t *testing.T) {
	t.Parallel()
	for _, store := range []kv.Store{&stale{Store: memkv.New(), last: map[string]*kv.KVPair{}}, deaf{memkv.New()}} {
		history, err := kvtest.Record(t.Context(), kvtest.Recording{Clients: 2}, store)
		require.NoError(t, err)
		require.Equal(t, porcupine.Illegal, judge(history, time.Minute))
	}
}
