package pool_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// loseWrites loses the writes to the pool's rows for as long as lost says:
// they hang for a while, then their outcome is unknown. landed says whether
// the store carried them out.
func (l *link) loseWrites(landed bool, lost func() bool) {
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if !strings.HasPrefix(call.Key, "lease/pool/p/") || !strings.HasPrefix(call.Op, "Atomic") || !lost() {
			return next(ctx)
		}
		if landed {
			_ = next(ctx)
		}
		select {
		case <-time.After(3 * time.Second):
		case <-ctx.Done():
		}
		return &kv.UncertainError{Key: call.Key, Err: errLost}
	})
}

// marks returns what the partition's row says, "absent" if there is none.
func (m *member) marks(t *testing.T, name string) string {
	p := m.status(t, name)
	if p == nil {
		return "absent"
	}
	return fmt.Sprintf("paused %t, removed %t, done %t, weight %d", p.Paused, p.Removed, p.Done, p.Weight)
}

func TestPoolCallsWhoseWritesAreLostGoOnUntilTheStoreAnswers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, marks, want string
		call              func(context.Context, *pool.Pool) error
	}{
		{"Add", "none", "paused false, removed false, done false, weight 1", func(ctx context.Context, p *pool.Pool) error {
			return p.Add(ctx, "x")
		}},
		{"Add of a removed one", `,"removed":true,"paused":true`, "paused true, removed false, done false, weight 1",
			func(ctx context.Context, p *pool.Pool) error {
				return p.Add(ctx, "x")
			}},
		{"Sync", "none", "paused false, removed false, done false, weight 1", func(ctx context.Context, p *pool.Pool) error {
			return p.Sync(ctx, "x")
		}},
		{"Sync of others", "", "absent", func(ctx context.Context, p *pool.Pool) error { return p.Sync(ctx) }},
		{"Remove", "", "absent", func(ctx context.Context, p *pool.Pool) error { return p.Remove(ctx, "x") }},
		{"Pause", "", "paused true, removed false, done false, weight 1", func(ctx context.Context, p *pool.Pool) error {
			return p.Pause(ctx, "x")
		}},
		{"Resume", `,"paused":true,"done":true`, "paused false, removed false, done true, weight 1",
			func(ctx context.Context, p *pool.Pool) error {
				return p.Resume(ctx, "x")
			}},
		{"Reopen", `,"paused":true,"done":true`, "paused true, removed false, done false, weight 1",
			func(ctx context.Context, p *pool.Pool) error {
				return p.Reopen(ctx, "x")
			}},
		{"Weigh", `,"removed":true`, "paused false, removed true, done false, weight 7",
			func(ctx context.Context, p *pool.Pool) error {
				return p.SetWeight(ctx, 7, "x")
			}},
	} {
		for _, landed := range []bool{false, true} {
			t.Run(fmt.Sprint(test.name, ", landed: ", landed), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					if test.marks != "none" {
						w.addMarked("x", test.marks)
					}
					p, link := w.tool()
					m := &member{Pool: p}
					began, before := time.Now(), m.marks(t, "x")
					link.loseWrites(landed, func() bool { return time.Since(began) < 10*time.Second })
					require.NoError(t, test.call(t.Context(), p))
					require.Equal(t, test.want, m.marks(t, "x"))
					require.Less(t, time.Since(began), time.Minute)

					if landed || before == test.want {
						return
					}
					// And while nothing ever lands, nothing is nil.
					w.store = newWorld(t).store
					if test.marks != "none" {
						w.addMarked("x", test.marks)
					}
					p, link = w.tool()
					link.loseWrites(false, func() bool { return true })
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
					defer cancel()
					require.ErrorIs(t, test.call(ctx, p), kv.ErrUncertain)
					require.Equal(t, before, (&member{Pool: p}).marks(t, "x"))
				})
			})
		}
	}
}

// What was refused, so that it is known not to be there, is not tried again.
func TestPoolAddReturnsARefusalAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p, link := w.tool()
		link.SetIntercept(func(context.Context, kv.Call, func(context.Context) error) error { return kv.ErrThrottled })
		began := time.Now()
		require.ErrorIs(t, p.Add(t.Context(), "x"), kv.ErrThrottled)
		require.Zero(t, time.Since(began))
		require.Equal(t, map[string]int{"AtomicPut": 1}, link.Take())
	})
}

func TestPoolAddOfARowThatIsNoPartitionFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		p, _ := w.tool()
		c, _ := w.client("mutex")
		w.acquire(c, "pool/p/x")
		require.NoError(t, w.store.Put(t.Context(), "lease/pool/p/y", kv.WithString("{")))
		for _, name := range []string{"x", "y"} {
			for what, call := range map[string]func(context.Context, ...string) error{
				"add": p.Add, "pause": p.Pause, "remove": p.Remove,
			} {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				require.ErrorIs(t, call(ctx, name), kv.ErrFormat, what)
				cancel()
			}
		}
		require.Len(t, w.rows("lease/"), 2)
	})
}

// stubborn is a member whose handler drains for an hour.
func (w *world) stubborn(b *ledger) *member {
	return w.member("stubborn", func(ctx context.Context, l *pool.Work) error {
		b.begin("stubborn", l)
		defer b.end("stubborn", l)
		<-l.Draining()
		time.Sleep(time.Hour)
		return nil
	}, pool.WithDrainTimeout(2*time.Hour))
}

func TestPoolPauseAndRemoveThatTimeOutNameWhoStillHasThePartition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		m := w.stubborn(b)
		b.await(t, time.Minute, 1, 1)
		p, link := w.tool()
		for what, call := range map[string]func(context.Context, ...string) error{"pause": p.Pause, "remove": p.Remove} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			err := call(ctx, "00000")
			cancel()
			require.ErrorIs(t, err, context.DeadlineExceeded, what)
			require.ErrorIs(t, err, lease.ErrHeld, what)
			require.ErrorContains(t, err, "stubborn", what)
		}
		require.Less(t, link.Take()["Get"], 250, "it polls too often")
		require.Equal(t, 1, b.load()["stubborn"])
		require.Len(t, w.rows("lease/"), 1)
		m.stop()
		<-m.ended
	})
}

func TestPoolPauseAndRemoveThatAreTakenBackWhileTheyWaitSaySo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		m := w.stubborn(b)
		b.await(t, time.Minute, 1, 1)
		p, _ := w.tool()
		for _, test := range []struct {
			call, back func(context.Context, ...string) error
		}{{p.Pause, p.Resume}, {p.Remove, p.Add}} {
			ended := make(chan error, 1)
			go func() { ended <- test.call(t.Context(), "00000") }()
			time.Sleep(time.Minute)
			require.Empty(t, ended)
			require.NoError(t, test.back(t.Context(), "00000"))
			began := time.Now()
			require.ErrorIs(t, <-ended, lease.ErrHeld)
			require.LessOrEqual(t, time.Since(began), time.Second)
		}
		time.Sleep(time.Hour + 2*interval)
		require.Equal(t, 1, b.load()["stubborn"], "it is worked on again")
		m.stop()
		<-m.ended
	})
}

// The holder's session cannot be read, so that nobody will ever say that it is
// dead.
func TestPoolPauseAndRemoveDoNotWaitForASessionThatCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		row := fmt.Sprintf(`{"f":2,"keep":true,"session":"s","acq":"a","owner":"o","value":%q}`, freshValue)
		require.NoError(t, w.store.Put(t.Context(), "lease/pool/p/x", kv.WithString(row)))
		require.NoError(t, w.store.Put(t.Context(), "session/s", kv.WithString("{")))
		p, _ := w.tool()
		for what, call := range map[string]func(context.Context, ...string) error{"pause": p.Pause, "remove": p.Remove} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			require.ErrorIs(t, call(ctx, "x"), kv.ErrFormat, what)
			require.NoError(t, ctx.Err(), "at once: %s", what)
			cancel()
		}
		require.Len(t, w.rows("lease/"), 1)
	})
}
