package lease_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
)

// Each call changes its own mark, and no other; where that is so already, it
// writes nothing.
func TestPoolCallsChangeTheirOwnMarkOnly(t *testing.T) {
	t.Parallel()
	type call = func(context.Context, *lease.Pool) error
	for _, test := range []struct {
		name, before, after string
		call                call
	}{
		{"Add", `,"done":true,"paused":true,"weight":5`, `,"done":true,"paused":true,"weight":5`, func(ctx context.Context, p *lease.Pool) error {
			return p.Add(ctx, "x", "x")
		}},
		{"Add, removed", `,"done":true,"paused":true,"removed":true,"weight":5`, `,"done":true,"paused":true,"weight":5`, func(ctx context.Context, p *lease.Pool) error {
			return p.Add(ctx, "x")
		}},
		{"Sync", `,"done":true,"paused":true,"weight":5`, `,"done":true,"paused":true,"weight":5`, func(ctx context.Context, p *lease.Pool) error {
			return p.Sync(ctx, "x", "x")
		}},
		{"Sync, removed", `,"done":true,"removed":true`, `,"done":true`, func(ctx context.Context, p *lease.Pool) error {
			return p.Sync(ctx, "x", "x")
		}},
		{"Pause", `,"done":true,"removed":true,"weight":5`, `,"done":true,"paused":true,"removed":true,"weight":5`, func(ctx context.Context, p *lease.Pool) error {
			return p.Pause(ctx, "x")
		}},
		{"Pause, paused", `,"paused":true`, `,"paused":true`, func(ctx context.Context, p *lease.Pool) error {
			return p.Pause(ctx, "x")
		}},
		{"Resume", `,"done":true,"paused":true,"removed":true,"weight":5`, `,"done":true,"removed":true,"weight":5`, func(ctx context.Context, p *lease.Pool) error {
			return p.Resume(ctx, "x")
		}},
		{"Reopen", `,"done":true,"paused":true,"removed":true,"weight":5`, `,"paused":true,"removed":true,"weight":5`, func(ctx context.Context, p *lease.Pool) error {
			return p.Reopen(ctx, "x")
		}},
		{"Reopen, open", `,"paused":true`, `,"paused":true`, func(ctx context.Context, p *lease.Pool) error {
			return p.Reopen(ctx, "x")
		}},
		{"Weigh", `,"done":true,"paused":true,"removed":true`, `,"done":true,"paused":true,"removed":true,"weight":1000000`, func(ctx context.Context, p *lease.Pool) error {
			return p.Weigh(ctx, lease.MaxWeight, "x")
		}},
		{"Weigh, as heavy", `,"weight":7`, `,"weight":7`, func(ctx context.Context, p *lease.Pool) error {
			return p.Weigh(ctx, 7, "x")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.addMarked("x", test.before)
			version := w.versions()["lease/p/x"]
			p, _ := w.tool()
			require.NoError(t, test.call(t.Context(), p))
			pair, err := w.store.Get(t.Context(), "lease/p/x")
			require.NoError(t, err)
			require.JSONEq(t, fmt.Sprintf(`{"f":1,"keep":true,"partition":{"f":1%s}}`, test.after), pair.String())
			require.Equal(t, test.before != test.after, pair.Version != version)
		})
	}
}

func TestPoolCallsWithABadArgumentSendNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, link := w.tool()
	ctx := t.Context()
	for name, err := range map[string]error{
		"Add":            p.Add(ctx, "good", "\xff"),
		"Add of nothing": p.Add(ctx, "good", ""),
		"Add, too long":  p.Add(ctx, "good", strings.Repeat("x", lease.MaxKeySize)),
		"Sync":           p.Sync(ctx, "good", ""),
		"Remove":         p.Remove(ctx, "good", ""),
		"Pause":          p.Pause(ctx, "good", ""),
		"Resume":         p.Resume(ctx, "good", ""),
		"Reopen":         p.Reopen(ctx, "good", ""),
		"Weigh":          p.Weigh(ctx, 1, "good", ""),
		"Weigh, light":   p.Weigh(ctx, 0, "good"),
		"Weigh, heavy":   p.Weigh(ctx, lease.MaxWeight+1, "good"),
	} {
		require.ErrorIs(t, err, lease.ErrInvalid, name)
	}
	calls := link.take()
	delete(calls, "ListPage") // Sync's, which cannot know before
	require.Empty(t, calls)
}

// Calls for many partitions send a bounded number of requests at once, wait for
// all, and keep nothing of what they were given.
func TestPoolCallsForManyPartitionsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p, link := w.tool()
		most := link.onTheWire()
		names := make([]string, 1000)
		for i := range names {
			names[i] = fmt.Sprintf("%05d", i)
		}
		given := slices.Clone(names)
		require.NoError(t, p.Add(t.Context(), given...))
		require.Equal(t, 32, most())
		require.NoError(t, p.Sync(t.Context(), given[:500]...))
		require.Equal(t, 32, most())
		require.Equal(t, names, given)
		require.Len(t, w.rows("lease/p/"), 500)
		began := time.Now()
		require.NoError(t, p.Pause(t.Context(), given[:500]...))
		require.Less(t, time.Since(began), time.Second)
	})
}

// What an operator has said of a partition and the time of a checkpoint do not
// overwrite each other, whoever was first.
func TestPoolCheckpointOverAMarkHasItsTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		next := make(chan struct{})
		m := w.member("0", func(ctx context.Context, l *lease.Lease) error {
			for range next {
				if err := l.Update(ctx, []byte(time.Now().String())); err != nil {
					return err
				}
				next <- struct{}{}
			}
			return lease.ErrDone
		})
		for i := range 3 {
			time.Sleep(time.Hour)
			require.NoError(t, m.Weigh(t.Context(), 2+i, "00000"))
			before := m.status(t, "00000")
			next <- struct{}{}
			<-next
			p := m.status(t, "00000")
			require.Equal(t, time.Now().String(), string(p.Checkpoint))
			require.WithinDuration(t, time.Now(), p.CheckpointAt, 0)
			require.Equal(t, 2+i, p.Weight)
			require.Equal(t, before.Token, p.Token)
			require.Equal(t, before.Session, p.Session)
			require.Equal(t, "0", p.Owner)
			p.Checkpoint[0] = '!' // it is the caller's
			require.Equal(t, time.Now().String(), string(m.status(t, "00000").Checkpoint))
		}
		close(next)
		require.NoError(t, <-m.ended)
		p := m.status(t, "00000")
		require.True(t, p.Done)
		require.Equal(t, 4, p.Weight)
		require.WithinDuration(t, time.Now(), p.CheckpointAt, time.Minute)
	})
}

// The row changes under a partition that was given back: what its holder says
// of it is added to what others have said meanwhile.
func TestPoolPartitionThatIsMarkedAndDoneIsBoth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		next := make(chan struct{})
		m := w.member("0", func(context.Context, *lease.Lease) error {
			<-next
			return lease.ErrDone
		})
		time.Sleep(time.Second)
		require.NoError(t, m.Weigh(t.Context(), 9, "00000"))
		close(next)
		require.NoError(t, <-m.ended)
		p := m.status(t, "00000")
		require.True(t, p.Done)
		require.Equal(t, 9, p.Weight)
	})
}
