package lease_test

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// before is a lease row as the version before turns (R20) reads and writes it: it
// drops what it does not know.
type before struct {
	Format  int    `json:"f"`
	Session string `json:"session,omitempty"`
	Acq     string `json:"acq,omitempty"`
	Owner   string `json:"owner,omitempty"`
	Keep    bool   `json:"keep,omitempty"`
	Value   []byte `json:"value,omitempty"`
	Token   uint64 `json:"token,omitempty"`
	Taken   bool   `json:"taken,omitempty"`
}

var errHeldBefore = errors.New("held")

// tryBefore tries to get "key" for a session as that version does (R9): a create,
// and where a row is in the way a write over it, if it is unowned or its session
// has no row.
func (w *world) tryBefore(session string) (token uint64, err error) {
	write := func(keep bool, value []byte, options ...kv.WriteOption) (*kv.KVPair, error) {
		acq := rows.RandomID(16)
		r := before{Format: 2, Session: session, Acq: acq, Owner: "before", Keep: keep, Value: value}
		options = append(options, kv.WithJSON(r), kv.WithFields(kv.Fields{"acq": acq}))
		return w.store.AtomicPut(w.t.Context(), "lease/key", options...)
	}
	pair, err := write(false, nil)
	if err == nil {
		return pair.Version, nil
	}
	current, _ := rows.CurrentPair(err)
	require.NotNil(w.t, current)
	var found before
	require.NoError(w.t, json.Unmarshal(current.Bytes(), &found))
	require.Equal(w.t, 2, found.Format)
	require.Equal(w.t, found.Session == "", found.Acq == "", "session and acq go together")
	require.True(w.t, found.Session != "" || found.Keep, "neither a session nor a value to keep")
	if found.Session != "" {
		if _, err := w.store.Get(w.t.Context(), "session/"+found.Session); !errors.Is(err, kv.ErrKeyNotFound) {
			return 0, errHeldBefore
		}
	}
	pair, err = write(found.Keep, found.Value, kv.WithPrevious(current))
	require.NoError(w.t, err)
	return pair.Version, nil
}

// A client of the version before turns takes a reserved row for held, and takes it
// over when whoever it is reserved for is dead. Nothing but order is lost.
func TestR20VersionBeforeTurnsTakesAReservedRowForHeld(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]lease.AcquireOption{"": nil, "kept": {lease.KeepValue(), lease.WithValue([]byte("v"))}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				a, _ := w.client("a")
				l, err := a.Acquire(t.Context(), "key", options...)
				require.NoError(t, err)
				old, _ := w.client("before")
				require.NoError(t, w.acquire(old, "other").Release(t.Context()))
				_, clients, links := w.queueUp("b", "c")
				_, err = w.tryBefore(old.Session())
				require.ErrorIs(t, err, errHeldBefore)
				links[0].SetCut(true)
				links[1].SetCut(true)
				require.NoError(t, l.Release(t.Context()))
				_, err = w.tryBefore(old.Session())
				require.ErrorIs(t, err, errHeldBefore, "reserved for b, which lives")
				pair, err := w.store.Get(t.Context(), "session/"+clients[0].Session())
				require.NoError(t, err)
				require.NoError(t, w.store.Delete(t.Context(), pair.Key))
				token, err := w.tryBefore(old.Session())
				require.NoError(t, err)
				require.Greater(t, token, l.Token())
				require.Empty(t, w.queue(), "the version before drops the queue")
				d, _ := w.client("d")
				next := waitFor(t.Context(), d, "key")
				time.Sleep(3 * time.Second)
				require.Equal(t, []string{"d"}, w.queue(), "others wait for it as for anybody")
				require.NoError(t, old.Close(t.Context()))
				l, _ = take(t, next)
				require.Greater(t, l.Token(), token)
				if options != nil {
					require.Equal(t, "v", string(l.Value()))
				}
				require.NoError(t, l.Release(t.Context()))
			})
		})
	}
}
