package pool_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// Each call changes its own mark, and no other; where that is so already, it
// writes nothing.
func TestPoolCallsChangeTheirOwnMarkOnly(t *testing.T) {
	t.Parallel()
	type call = func(context.Context, *pool.Pool) error
	for _, test := range []struct {
		name, before, after string
		call                call
	}{
		{"Add", `,"done":true,"paused":true,"weight":5`, `,"done":true,"paused":true,"weight":5`,
			func(ctx context.Context, p *pool.Pool) error {
				return p.Add(ctx, "x", "x")
			}},
		{"Add, removed", `,"done":true,"paused":true,"removed":true,"weight":5`, `,"done":true,"paused":true,"weight":5`,
			func(ctx context.Context, p *pool.Pool) error {
				return p.Add(ctx, "x")
			}},
		{"Sync", `,"done":true,"paused":true,"weight":5`, `,"done":true,"paused":true,"weight":5`,
			func(ctx context.Context, p *pool.Pool) error {
				return p.Sync(ctx, "x", "x")
			}},
		{"Sync, removed", `,"done":true,"removed":true`, `,"done":true`, func(ctx context.Context, p *pool.Pool) error {
			return p.Sync(ctx, "x", "x")
		}},
		{"Pause", `,"done":true,"removed":true,"weight":5`, `,"done":true,"paused":true,"removed":true,"weight":5`,
			func(ctx context.Context, p *pool.Pool) error {
				return p.Pause(ctx, "x")
			}},
		{"Pause, paused", `,"paused":true`, `,"paused":true`, func(ctx context.Context, p *pool.Pool) error {
			return p.Pause(ctx, "x")
		}},
		{"Resume", `,"done":true,"paused":true,"removed":true,"weight":5`, `,"done":true,"removed":true,"weight":5`,
			func(ctx context.Context, p *pool.Pool) error {
				return p.Resume(ctx, "x")
			}},
		{"Reopen", `,"done":true,"paused":true,"removed":true,"weight":5`, `,"paused":true,"removed":true,"weight":5`,
			func(ctx context.Context, p *pool.Pool) error {
				return p.Reopen(ctx, "x")
			}},
		{"Reopen, open", `,"paused":true`, `,"paused":true`, func(ctx context.Context, p *pool.Pool) error {
			return p.Reopen(ctx, "x")
		}},
		{"Weigh", `,"done":true,"paused":true,"removed":true`, `,"done":true,"paused":true,"removed":true,"weight":1000000`,
			func(ctx context.Context, p *pool.Pool) error {
				return p.SetWeight(ctx, pool.MaxWeight, "x")
			}},
		{"Weigh, as heavy", `,"weight":7`, `,"weight":7`, func(ctx context.Context, p *pool.Pool) error {
			return p.SetWeight(ctx, 7, "x")
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.addMarked("x", test.before)
			version := w.versions()["lease/pool/p/x"]
			p, _ := w.tool()
			require.NoError(t, test.call(t.Context(), p))
			pair, err := w.store.Get(t.Context(), "lease/pool/p/x")
			require.NoError(t, err)
			require.JSONEq(t, partitionRow(test.after), pair.String())
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
		"Weigh":          p.SetWeight(ctx, 1, "good", ""),
		"Weigh, light":   p.SetWeight(ctx, 0, "good"),
		"Weigh, heavy":   p.SetWeight(ctx, pool.MaxWeight+1, "good"),
	} {
		require.ErrorIs(t, err, lease.ErrInvalid, name)
	}
	calls := link.Take()
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
		require.Len(t, w.rows("lease/pool/p/"), 500)
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
		m := w.member("0", func(ctx context.Context, l *pool.Work) error {
			for range next {
				if err := l.Save(ctx, []byte(time.Now().String())); err != nil {
					return err
				}
				next <- struct{}{}
			}
			return pool.ErrDone
		})
		for i := range 3 {
			time.Sleep(time.Hour)
			require.NoError(t, m.SetWeight(t.Context(), 2+i, "00000"))
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
// Of it is added to what others have said meanwhile.
func TestPoolPartitionThatIsMarkedAndDoneIsBoth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		next := make(chan struct{})
		m := w.member("0", func(context.Context, *pool.Work) error {
			<-next
			return pool.ErrDone
		})
		time.Sleep(time.Second)
		require.NoError(t, m.SetWeight(t.Context(), 9, "00000"))
		close(next)
		require.NoError(t, <-m.ended)
		p := m.status(t, "00000")
		require.True(t, p.Done)
		require.Equal(t, 9, p.Weight)
	})
}

// A partition that is not to be worked on is not, however its row says so.
func TestPoolMemberDoesNotTakeWhatIsMarked(t *testing.T) {
	t.Parallel()
	for _, marks := range []string{`,"done":true`, `,"paused":true`, `,"removed":true`} {
		synctest.Test(t, func(t *testing.T) {
			w, b := newWorld(t), newLedger()
			w.partitions(1)
			w.addMarked("x", marks)
			m := w.member("0", b.handler("0"))
			b.await(t, time.Second, 1, 1)
			before := w.versions()["lease/pool/p/x"]
			time.Sleep(5 * interval)
			require.Equal(t, map[string]int{"0": 1}, b.load())
			require.Equal(t, before, w.versions()["lease/pool/p/x"])
			m.leave(t)
		})
	}
}

// It is marked between the listing that shows it to be free and the write that
// would take it.
func TestPoolMemberDoesNotTakeWhatIsMarkedJustThen(t *testing.T) {
	t.Parallel()
	for name, mark := range map[string]func(context.Context, *pool.Pool) error{
		"paused": func(ctx context.Context, p *pool.Pool) error { return p.Pause(ctx, "00000") },
		"paused and weighed": func(ctx context.Context, p *pool.Pool) error {
			return errors.Join(p.Pause(ctx, "00000"), p.SetWeight(ctx, 3, "00000"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, b := newWorld(t), newLedger()
				w.partitions(1)
				tool, _ := w.tool()
				hook, marked := beforeTaking(func() error { return mark(t.Context(), tool) })
				m, _ := w.logged("0", b.handler("0"), hook)
				require.NoError(t, <-marked)
				time.Sleep(5 * interval)
				require.Empty(t, b.begun, "worked on after Pause returned")
				require.Empty(t, w.heldRows())
				m.leave(t)
			})
		})
	}
}

// Whether the holder's session is alive cannot be asked: it may be.
func TestPoolPauseAndRemoveDoNotTakeSilenceForDeath(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		m := w.stubborn(b)
		b.await(t, time.Minute, 1, 1)
		p, link := w.tool()
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if strings.HasPrefix(call.Key, "session/") {
				return errLost
			}
			return next(ctx)
		})
		for _, call := range []func(context.Context, ...string) error{p.Pause, p.Remove} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := call(ctx, "00000")
			cancel()
			require.ErrorIs(t, err, lease.ErrHeld)
			require.ErrorIs(t, err, errLost, "why it is not known")
			require.Len(t, w.rows("lease/pool/p/"), 1)
		}
		require.Equal(t, 1, b.load()["stubborn"])
		m.stop()
		<-m.ended
	})
}

// A store that refuses a mark for good is not asked again.
func TestPoolCallsReturnWhatTimeDoesNotMend(t *testing.T) {
	t.Parallel()
	for _, op := range []string{"AtomicPut", "Get", "AtomicDelete"} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.addMarked("x", `,"removed":true`)
			p, link := w.tool()
			failure := kv.ErrClosed
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Op == op {
					return failure
				}
				return next(ctx)
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			switch op {
			case "AtomicPut":
				require.ErrorIs(t, p.SetWeight(ctx, 2, "x"), failure)
			case "Get":
				require.ErrorIs(t, p.SetWeight(ctx, 2, "x"), failure)
			default:
				require.ErrorIs(t, p.Remove(ctx, "x"), failure)
			}
			require.Equal(t, 1, link.Take()[op])
		})
	}
}

// Sync does what it can of both.
func TestPoolSyncThatCannotAddRemovesAllTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(2)
		p, link := w.tool()
		link.SetIntercept(onWritesOf("lease/pool/p/new", 0, kv.ErrThrottled))
		require.ErrorIs(t, p.Sync(t.Context(), "00000", "new"), kv.ErrThrottled)
		require.Equal(t, []string{"lease/pool/p/00000"}, w.rows("lease/"))
	})
}

// A name that stands twice is added once.
func TestPoolSyncAddsANameThatStandsTwiceOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, link := w.tool()
	require.NoError(t, p.Sync(t.Context(), "x", "y", "x", "x"))
	require.Equal(t, map[string]int{"ListPage": 1, "AtomicPut": 2}, link.Take())
}

// A checkpoint that is empty is one, as its time tells.
func TestPoolEmptyCheckpointIsNotNone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		var before, after []byte
		var saved error
		m := w.member("0", func(ctx context.Context, work *pool.Work) error {
			before = work.Checkpoint()
			saved = work.Save(ctx, nil)
			after = work.Checkpoint()
			return pool.ErrDone
		})
		require.NoError(t, <-m.ended)
		p := m.status(t, "00000")
		require.NoError(t, saved)
		require.Nil(t, before)
		require.Equal(t, []byte{}, after)
		require.Equal(t, []byte{}, p.Checkpoint)
		require.False(t, p.CheckpointAt.IsZero())
	})
}

// The weight that a partition has anyhow is nothing to say of it.
func TestPoolWeightOfOneLeavesNoNote(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		p, link := w.tool()
		link.Take()
		require.NoError(t, p.SetWeight(t.Context(), 1, "00000"))
		require.Equal(t, map[string]int{"Get": 1}, link.Take(), "it weighs that already")
		require.NoError(t, p.SetWeight(t.Context(), 7, "00000"))
		require.NoError(t, p.SetWeight(t.Context(), 1, "00000"))
		c, _ := w.client("inspector")
		require.Empty(t, inspect(t, c, "pool/p/00000").Note)
	})
}
