package lease_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// A client that acquires and releases in a loop. Its rests (R15) alone would leave
// the key to others once in six seconds.
func TestR20HogDoesNotKeepAWaiterFromItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const hold = 2 * time.Second
		w := newWorld(t)
		a, _ := w.client("hog")
		w.hog(a, hold)
		time.Sleep(10 * time.Second)
		b, _ := w.client("b")
		for i := range 20 {
			time.Sleep(time.Duration(i) * 317 * time.Millisecond) // at any time of a hold
			began := time.Now()
			l, err := b.Acquire(t.Context(), "key")
			require.NoError(t, err)
			require.Less(t, time.Since(began), lease.DefaultTurnAfter+hold+500*time.Millisecond)
			require.NoError(t, l.Release(t.Context()))
		}
	})
}

// The holder's lease stays what it is while others queue up.
func TestR20EntriesLeaveTheLeaseAsItIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l, err := a.Acquire(t.Context(), "key", lease.KeepValue(), lease.WithValue([]byte("one")))
		require.NoError(t, err)
		got, _, _ := w.queueUp("b", "c")
		h, err := a.Holder(t.Context(), "key")
		require.NoError(t, err)
		require.Equal(t, l.Token(), h.Token)
		require.Equal(t, []string{"b", "c"}, []string{h.Waiters[0].Owner, h.Waiters[1].Owner})
		require.NoError(t, a.Annotate(t.Context(), h, []byte("note")))
		require.NoError(t, l.Update(t.Context(), []byte("two")))
		require.NoError(t, l.Update(t.Context(), []byte("three")))
		require.Equal(t, []string{"b", "c"}, w.queue())
		require.True(t, l.Held())
		pair, err := w.store.Get(t.Context(), "lease/key")
		require.NoError(t, err)
		require.Equal(t, l.Condition().Value, pair.Fields[l.Condition().Field], "the condition of the holder's writes")
		require.NoError(t, l.Release(t.Context()))
		for _, g := range got {
			l, _ = take(t, g)
			require.Equal(t, "three", string(l.Value()))
			require.Equal(t, "note", string(w.leaseRow().Note))
			require.NoError(t, l.Release(t.Context()))
		}
		require.Equal(t, "three", string(w.leaseRow().Value))
	})
}

// What cannot be read of a queue costs the order, and nothing else.
func TestR20UnreadableQueueIsNone(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		"held":              `{"f":2,"session":"%s","acq":"x","owner":"a","queue":17}`,
		"held, entries":     `{"f":2,"session":"%s","acq":"x","owner":"a","queue":[{"id":7}]}`,
		"reserved":          `{"f":2,"session":"%s","acq":"x","owner":"a","queue":"b","until_ms":99999999999999}`,
		"reserved, no time": `{"f":2,"session":"%s","acq":"x","owner":"a","queue":{},"until_ms":"soon"}`,
		"reserved, at zero": `{"f":2,"session":"%s","acq":"x","owner":"a","queue":[],"until_ms":0}`,
		"held, for nobody":  `{"f":2,"session":"%s","acq":"x","owner":"a","queue":[{"id":"e","s":""}]}`,
		"reserved for none": `{"f":2,"session":"%s","acq":"x","owner":"a","queue":[{"id":"","s":"t"}],"until_ms":-1}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, la := w.client("a")
				require.NoError(t, w.acquire(a, "other").Release(t.Context()))
				err := w.store.Put(t.Context(), "lease/key", kv.WithBytes(fmt.Appendf(nil, value, a.Session())))
				require.NoError(t, err)
				b, _ := w.client("b")
				h, err := b.Holder(t.Context(), "key")
				require.NoError(t, err)
				require.Empty(t, h.Waiters)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				_, err = b.TryAcquire(ctx, "key")
				if name[:4] == "held" {
					require.ErrorIs(t, err, lease.ErrHeld)
					la.SetCut(true)
					_, err = b.Acquire(ctx, "key")
				}
				require.NoError(t, err)
			})
		})
	}
}

func TestR20KeepOfAReservedKeyKeepsTheQueueToo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		got, _, links := w.queueUp("b", "c")
		links[0].SetCut(true)
		require.NoError(t, l.Release(t.Context()))
		h, err := a.Keep(t.Context(), "key", []byte("v"))
		require.NoError(t, err)
		require.True(t, h.Kept)
		require.Equal(t, []string{"b", "c"}, w.queue())
		l, _ = take(t, got[1])
		require.Equal(t, "v", string(l.Value()))
	})
}

func TestR20WhoBreaksALeaseAndWaitsKeepsItsOnePlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		w.acquire(a, "key")
		got, clients, links := w.queueUp("x", "b")
		links[0].SetCut(true)
		h, err := clients[1].Holder(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, clients[1].Break(t.Context(), h, lease.BreakForce()))
		require.Equal(t, []string{"x", "b"}, w.queue())
		take(t, got[1])
		require.Empty(t, w.queue())
	})
}

func TestR20LongerQueueIsReadToItsSixteenthPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _ := w.client("a")
	record := rows.Lease{Session: "s", Acq: "x", Owner: "o"}
	for i := range rows.MaxQueue + 4 {
		record.Queue = append(record.Queue, rows.NewEntry(fmt.Sprint(i), "", time.Second))
	}
	_, err := w.store.AtomicPut(t.Context(), "lease/key", record.Options(nil, kv.WithAttemptTimeout(time.Second))...)
	require.NoError(t, err)
	h, err := a.Holder(t.Context(), "key")
	require.NoError(t, err)
	require.Len(t, h.Waiters, rows.MaxQueue)
}
