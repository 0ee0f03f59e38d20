package pool_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

var errBroken = errors.New("broken pipe\nand what it came with")

func TestPoolMaxAttemptsMakesAPartitionFailedAndRunEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(3)
		events := &recorder{}
		c, link := w.client("0", lease.WithObserver(events.Observe))
		var attempts []int
		handle := func(_ context.Context, l *pool.Work) error {
			if l.Name() != "00001" {
				return pool.ErrDone
			}
			attempts = append(attempts, l.Attempt())
			return errBroken
		}
		m := w.run(&member{client: c, link: link}, handle, pool.WithMaxAttempts(3))
		m.requireEnd(t)
		require.Equal(t, []int{1, 2, 3}, attempts)
		p := m.status(t, "00001")
		require.True(t, p.Failed)
		require.False(t, p.Done)
		require.Equal(t, 3, p.Failures)
		require.Equal(t, "broken pipe", p.LastError)
		require.Empty(t, p.Owner)
		counts, err := m.Progress(t.Context())
		require.NoError(t, err)
		require.Equal(t, pool.Progress{Total: 3, Done: 2, Failed: 1}, counts)
		require.Len(t, events.Of(pool.EventFailed), 3)
		failed := events.Of(pool.EventPartitionFailed)
		require.Len(t, failed, 1)
		require.ErrorIs(t, failed[0].Err, errBroken)
		require.Equal(t, "pool/p/00001", failed[0].Key)

		unbounded := w.member("1", handle)
		unbounded.requireEnd(t)
		require.Len(t, attempts, 3)

		require.NoError(t, m.Reopen(t.Context(), "00001"))
		p = m.status(t, "00001")
		require.False(t, p.Failed)
		require.Zero(t, p.Failures)
		require.Empty(t, p.LastError)
		again := w.member("2", handle, pool.WithMaxAttempts(2))
		again.requireEnd(t)
		require.Equal(t, []int{1, 2, 3, 1, 2}, attempts)
	})
}

// requireEnd requires that Run ends by itself.
func (m *member) requireEnd(t *testing.T) {
	t.Helper()
	select {
	case err := <-m.ended:
		require.NoError(t, err)
	case <-time.After(time.Hour):
		require.Fail(t, "it goes on and on")
	}
}

// Whatever shows that an attempt has got on, those before it do not count.
func TestPoolAttemptThatGetsOnBeginsTheCountAnew(t *testing.T) {
	t.Parallel()
	for name, getOn := range map[string]func(ctx context.Context, l *pool.Work) error{
		"a checkpoint": func(ctx context.Context, l *pool.Work) error {
			return errors.Join(l.Save(ctx, []byte("on")), errBroken)
		},
		"a minute":  func(context.Context, *pool.Work) error { time.Sleep(61 * time.Second); return errBroken },
		"giving up": func(context.Context, *pool.Work) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.partitions(1)
				var attempts []int
				m := w.member("0", func(ctx context.Context, l *pool.Work) error {
					attempts = append(attempts, l.Attempt())
					switch len(attempts) {
					case 3:
						return getOn(ctx, l)
					case 6:
						return pool.ErrDone
					}
					return errBroken
				}, pool.WithMaxAttempts(4))
				m.requireEnd(t)
				if name == "giving up" {
					require.Equal(t, []int{1, 2, 3, 1, 2, 3}, attempts)
				} else {
					require.Equal(t, []int{1, 2, 3, 2, 3, 4}, attempts, "the third failed too, in the end")
				}
				p := m.status(t, "00000")
				require.True(t, p.Done)
				require.Zero(t, p.Failures)
				require.Empty(t, p.LastError)
			})
		})
	}
}

// process is a member whose process ends as soon as its handler has called die.
type process struct {
	*member
	died chan struct{}
	once sync.Once
}

// die cuts it off at once, and keeps the handler that called it from going on.
func (p *process) die(ctx context.Context) error {
	p.once.Do(func() { p.link.SetCut(true); close(p.died) })
	<-ctx.Done()
	return context.Cause(ctx)
}

// supervise starts one member after another until one of them has ended in order.
// It returns how many died.
func (w *world) supervise(handle func(ctx context.Context, p *process, l *pool.Work) error,
	options ...pool.Option) (deaths int) {
	w.t.Helper()
	for ; deaths < 20; deaths++ {
		c, link := w.client(fmt.Sprint("process", deaths), lease.WithTTL(lease.DefaultTTL))
		p := &process{died: make(chan struct{})}
		p.member = &member{client: c, link: link}
		set := make(chan struct{})
		w.run(p.member, func(ctx context.Context, l *pool.Work) error {
			<-set // what follows has been
			return handle(ctx, p, l)
		}, options...)
		close(set)
		select {
		case err := <-p.ended:
			require.NoError(w.t, err)
			return deaths
		case <-p.died:
			p.stop()
		}
	}
	require.Fail(w.t, "all of them died")
	return deaths
}

// Nobody else can know which of its partitions a process died of. Only that one
// fails, and all others end.
func TestPoolPartitionThatKillsItsProcessFailsAndAllOthersEnd(t *testing.T) {
	t.Parallel()
	for _, max := range []int{2, 3, 5} {
		for _, slow := range []time.Duration{0, 5 * time.Second} {
			t.Run(fmt.Sprint(max, " ", slow), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					const n = 20
					w.partitions(n)
					deaths := w.supervise(func(ctx context.Context, p *process, l *pool.Work) error {
						if l.Name() == "00007" {
							return p.die(ctx)
						}
						if slow > 0 {
							time.Sleep(slow)
						}
						if ctx.Err() != nil || p.isDead() {
							<-ctx.Done()
							return context.Cause(ctx)
						}
						return pool.ErrDone
					}, pool.WithMaxAttempts(max), pool.WithMaxMoves(n))
					require.Equal(t, max, deaths)
					p, _ := w.tool()
					counts, err := p.Progress(t.Context())
					require.NoError(t, err)
					require.Equal(t, pool.Progress{Total: n, Done: n - 1, Failed: 1}, counts)
					killer := (&member{Pool: p}).status(t, "00007")
					require.Equal(t, max, killer.Failures)
					require.Contains(t, killer.LastError, "died")
				})
			})
		}
	}
}

// isDead reports whether the process has died.
func (p *process) isDead() bool {
	select {
	case <-p.died:
		return true
	default:
		return false
	}
}

// Partitions that run for ever are not done when another kills their process.
// Those that last for a minute do not count what others did.
func TestPoolPartitionsThatLastOutliveOneThatKillsTheirProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		const n = 10
		w.partitions(n)
		var mu sync.Mutex
		began, start := map[string]int{}, time.Now()
		deaths := w.supervise(func(ctx context.Context, p *process, l *pool.Work) error {
			mu.Lock()
			began[l.Name()]++
			mu.Unlock()
			if l.Name() == "00003" {
				return p.die(ctx)
			}
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(20 * time.Minute):
				return pool.ErrDone
			}
		}, pool.WithMaxAttempts(3))
		require.Equal(t, 3, deaths)
		p, _ := w.tool()
		counts, err := p.Progress(t.Context())
		require.NoError(t, err)
		require.Equal(t, pool.Progress{Total: n, Done: n - 1, Failed: 1}, counts)
		require.Equal(t, 3, began["00003"])
		require.Less(t, time.Since(start), 40*time.Minute, "a last attempt that has got on holds the others up")
	})
}

// Whatever ends an attempt that is nobody's fault does not count.
func TestPoolAttemptThatNobodyIsToBlameForDoesNotCount(t *testing.T) {
	t.Parallel()
	const max = 1
	for name, round := range map[string]func(w *world, b *ledger, n int){
		"Run ends": func(w *world, b *ledger, n int) {
			m := w.member(fmt.Sprint(n), b.handler("x"), pool.WithMaxAttempts(max))
			b.await(w.t, time.Minute, 1, 1)
			m.leave(w.t)
		},
		"the client is closed": func(w *world, b *ledger, n int) {
			m := w.member(fmt.Sprint(n), b.handler("x"), pool.WithMaxAttempts(max))
			b.await(w.t, time.Minute, 1, 1)
			require.NoError(w.t, m.client.Close(w.t.Context()))
			<-m.ended
		},
		"an acquire of unknown outcome": func(w *world, b *ledger, n int) {
			c, link := w.client(fmt.Sprint(n), lease.WithTTL(lease.DefaultTTL))
			link.LoseAnswer("AtomicPut", "lease/")
			m := w.run(&member{client: c, link: link}, b.handler("x"), pool.WithMaxAttempts(max))
			time.Sleep(3 * interval)
			m.leave(w.t)
			require.NoError(w.t, c.Close(w.t.Context()))
		},
		"the process dies after more than a minute": func(w *world, b *ledger, n int) {
			m := w.member(fmt.Sprint(n), b.handler("x"), pool.WithMaxAttempts(max))
			b.await(w.t, time.Minute, 1, 1)
			time.Sleep(62 * time.Second)
			m.crash(b, "x")
			m.stop()
			time.Sleep(failover)
		},
		"the process dies after a checkpoint": func(w *world, b *ledger, n int) {
			saved := make(chan error, 1)
			m := w.member(fmt.Sprint(n), func(ctx context.Context, l *pool.Work) error {
				saved <- l.Save(ctx, []byte("on"))
				return b.handler("x")(ctx, l)
			}, pool.WithMaxAttempts(max))
			select {
			case err := <-saved:
				require.NoError(w.t, err)
			case <-time.After(time.Hour):
				require.Fail(w.t, "it is not worked on")
			}
			synctest.Wait()
			m.crash(b, "x")
			m.stop()
			time.Sleep(failover)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.partitions(1)
				for i := range 4 {
					round(w, newLedger(), i)
				}
				m := w.member("last", finish, pool.WithMaxAttempts(max))
				m.requireEnd(t)
				require.True(t, m.status(t, "00000").Done)
			})
		})
	}
}

// What the count costs: nothing but a write for each attempt that is repeated or
// lasts for a minute.
func TestPoolMaxAttemptsCostsWhatItSays(t *testing.T) {
	t.Parallel()
	const n = 10
	for name, test := range map[string]struct {
		handle pool.Handler
		puts   int
	}{
		"done at once": {finish, 1 + 2*n},
		"saved, and done after more than a minute": {func(ctx context.Context, l *pool.Work) error {
			err := l.Save(ctx, []byte("x"))
			time.Sleep(2 * time.Minute)
			return errors.Join(err, pool.ErrDone)
		}, 1 + 3*n},
		"done after more than a minute": {func(context.Context, *pool.Work) error {
			time.Sleep(2 * time.Minute)
			return pool.ErrDone
		}, 1 + 3*n},
		"failed twice": {func(_ context.Context, l *pool.Work) error {
			if l.Attempt() < 3 {
				return errBroken
			}
			return pool.ErrDone
		}, 1 + 4*n},
		"failed for good": {func(context.Context, *pool.Work) error { return errBroken }, 1 + 4*n},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.partitions(n)
				c, link := w.client("0", lease.WithTTL(lease.DefaultTTL))
				var puts, others int
				var mu sync.Mutex
				link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
					mu.Lock()
					defer mu.Unlock()
					switch {
					case call.Op == "AtomicPut" && strings.HasPrefix(call.Key, "lease/"):
						puts++
					case call.Op != "ListPage" && call.Op != "AtomicPut":
						others++
					}
					return next(ctx)
				})
				m := w.run(&member{client: c, link: link}, test.handle, pool.WithMaxAttempts(3), pool.WithMaxMoves(n))
				m.requireEnd(t)
				require.Equal(t, test.puts-1, puts)
				require.Zero(t, others)
			})
		})
	}
}

// An old listing shows an older checkpoint. The acquire counts the attempt, and
// leaves the newest one as it is.
func TestPoolAttemptIsCountedOverTheNewestRowNotTheOneThatWasListed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		s := w.stale(time.Hour)
		s.fresh = "session/"
		first := w.member("0", func(ctx context.Context, l *pool.Work) error {
			return errors.Join(l.Save(ctx, []byte("newest")), errBroken)
		}, pool.WithMaxAttempts(100))
		time.Sleep(interval)
		first.leave(t)
		var found string
		m := w.joinStale(s, "1", func(_ context.Context, l *pool.Work) error {
			found = string(l.Checkpoint())
			return pool.ErrDone
		}, pool.WithMaxAttempts(100), pool.WithPlanInterval(time.Second))
		time.Sleep(interval)
		m.leave(t)
		require.Equal(t, "newest", found)
		require.Equal(t, "newest", string(first.status(t, "00000").Checkpoint))
	})
}

// The attempt has lasted for a minute while its first checkpoint is on its way:
// what that says stays.
func TestPoolCheckpointThatIsOnItsWayIsNotTakenBackByTheNoteOfAnAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		c, link := w.client("0", lease.WithTTL(lease.DefaultTTL))
		m := w.run(&member{client: c, link: link}, func(ctx context.Context, l *pool.Work) error {
			time.Sleep(59500 * time.Millisecond)
			link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Op == "AtomicPut" && call.Key == "lease/"+l.Key() {
					time.Sleep(700 * time.Millisecond)
				}
				return next(ctx)
			})
			err := l.Save(ctx, []byte("newest"))
			time.Sleep(10 * time.Second)
			return errors.Join(err, pool.ErrDone)
		}, pool.WithMaxAttempts(3))
		m.requireEnd(t)
		require.Equal(t, "newest", string(m.status(t, "00000").Checkpoint))
	})
}

func TestPoolMaxAttemptsHasBounds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, _ := w.client("0")
	for _, n := range []int{0, -1} {
		_, err := pool.New(c, "p", finish, pool.WithMaxAttempts(n))
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, "want at least 1")
	}
}
