package pool_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// status returns a partition of the pool by name, nil if there is none.
func (m *member) status(t *testing.T, name string) *pool.Partition {
	t.Helper()
	for p, err := range m.Partitions(t.Context()) {
		require.NoError(t, err)
		if p.Name == name {
			return p
		}
	}
	return nil
}

func TestPoolRunReturnsWhenAllPartitionsAreDoneAndNotBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var calls atomic.Int32
		m := w.member("0", func(ctx context.Context, l *pool.Work) error {
			calls.Add(1)
			if err := l.Save(ctx, []byte("end")); err != nil {
				return err
			}
			return pool.ErrDone
		})
		time.Sleep(time.Minute)
		require.Empty(t, m.ended, "there are no partitions yet")
		w.partitions(10)
		began := time.Now()
		require.NoError(t, <-m.ended)
		require.Less(t, time.Since(began), 2*interval)
		require.EqualValues(t, 10, calls.Load())
		p := m.status(t, "00003")
		require.True(t, p.Done)
		require.Equal(t, "end", string(p.Checkpoint))
		require.Empty(t, p.Owner)
		require.NotZero(t, p.CheckpointAt)

		again := w.member("1", func(context.Context, *pool.Work) error { return errors.New("called") }, pool.WithoutEnd())
		time.Sleep(time.Minute)
		require.Empty(t, again.ended)
		again.leave(t)
		require.EqualValues(t, 10, calls.Load())
	})
}

func TestPoolReopenedPartitionIsWorkedOnAgainFromItsCheckpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(3)
		var got []string
		m := w.member("0", func(ctx context.Context, l *pool.Work) error {
			if err := l.Save(ctx, []byte(l.Key())); err != nil {
				return err
			}
			return pool.ErrDone
		})
		require.NoError(t, <-m.ended)
		require.NoError(t, m.Reopen(t.Context(), "00001", "absent"))
		require.False(t, m.status(t, "00001").Done)
		again := w.member("1", func(_ context.Context, l *pool.Work) error {
			got = append(got, l.Key()+" from "+string(l.Checkpoint()))
			return pool.ErrDone
		})
		require.NoError(t, <-again.ended)
		require.Equal(t, []string{"pool/p/00001 from pool/p/00001"}, got)
		require.True(t, m.status(t, "00001").Done)
		require.Len(t, w.rows("lease/"), 3)
	})
}

// A checkpoint whose answer was lost may have changed the row's version: done is done all the same.
func TestPoolPartitionIsDoneAlsoAfterALostAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		c, link := w.client("0")
		m := w.run(&member{client: c, link: link}, func(ctx context.Context, l *pool.Work) error {
			link.LoseAnswer("AtomicPut", "lease/")
			if err := l.Save(ctx, []byte("end")); !errors.Is(err, kv.ErrUncertain) {
				return err
			}
			return pool.ErrDone
		})
		require.NoError(t, <-m.ended)
		p := m.status(t, "00000")
		require.True(t, p.Done)
		require.Equal(t, "end", string(p.Checkpoint))
	})
}

// A checkpoint whose answer was lost is followed by one that is known: that is the
// last.
func TestPoolPartitionIsDoneWithItsLastCheckpoint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		c, link := w.client("0")
		m := w.run(&member{client: c, link: link}, func(ctx context.Context, l *pool.Work) error {
			link.LoseAnswer("AtomicPut", "lease/")
			if err := l.Save(ctx, []byte("middle")); !errors.Is(err, kv.ErrUncertain) {
				return err
			}
			if err := l.Save(ctx, []byte("end")); err != nil {
				return err
			}
			return pool.ErrDone
		})
		require.NoError(t, <-m.ended)
		p := m.status(t, "00000")
		require.True(t, p.Done)
		require.Equal(t, "end", string(p.Checkpoint))
	})
}

func TestPoolHandlerThatFailsIsCalledAgainWithTheSameLeaseAfterAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		var log bytes.Buffer
		events := &recorder{}
		c, link := w.client("0", lease.WithLogger(slog.New(slog.NewTextHandler(&log, nil))),
			lease.WithObserver(events.Observe))
		var tokens []uint64
		var at []time.Time
		m := w.run(&member{client: c, link: link}, func(_ context.Context, l *pool.Work) error {
			tokens, at = append(tokens, l.Token()), append(at, time.Now())
			switch len(tokens) {
			case 1:
				return errors.New("broken pipe")
			case 2:
				panic("at the disco")
			}
			return pool.ErrDone
		})
		require.NoError(t, <-m.ended)
		require.Len(t, tokens, 3)
		require.Equal(t, tokens[0], tokens[2])
		require.GreaterOrEqual(t, at[1].Sub(at[0]), 500*time.Millisecond)
		require.LessOrEqual(t, at[2].Sub(at[1]), 3*time.Second)
		require.NoError(t, c.Close(t.Context()))
		require.Contains(t, log.String(), "broken pipe")
		require.Contains(t, log.String(), "at the disco")
		require.Contains(t, log.String(), "handler_test.go", "no stack")
		require.Len(t, events.Of(pool.EventFailed), 2)
	})
}

func TestPoolPartitionThatIsGivenUpIsTakenByTheNextPlan(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		var calls atomic.Int32
		m := w.member("0", func(context.Context, *pool.Work) error {
			calls.Add(1)
			return nil
		})
		time.Sleep(10*interval + time.Second)
		require.InDelta(t, 11, calls.Load(), 2)
		m.leave(t)
	})
}

func TestPoolHandlerIsAskedToStopAndThenHasTheDrainTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		type times struct {
			asked, ended time.Time
			cause        error
		}
		told := make(chan times, 1)
		m := w.member("0", func(ctx context.Context, l *pool.Work) error {
			<-l.Draining()
			asked := time.Now()
			<-ctx.Done()
			told <- times{asked, time.Now(), context.Cause(ctx)}
			time.Sleep(time.Hour) // it takes no notice
			if !l.Held() {
				return errors.New("given away")
			}
			return nil
		}, pool.WithDrainTimeout(7*time.Second))
		time.Sleep(interval)
		began := time.Now()
		m.stop()
		time.Sleep(time.Minute)
		got := <-told
		require.Equal(t, began, got.asked)
		require.Equal(t, 7*time.Second, got.ended.Sub(got.asked))
		require.ErrorIs(t, got.cause, pool.ErrDrainTimeout)
		require.Empty(t, m.ended, "the handler is still running")
		require.NotEmpty(t, m.status(t, "00000").Owner, "and has its partition")
		require.NoError(t, <-m.ended)
		require.Equal(t, time.Hour, time.Since(got.ended))
		require.Empty(t, m.status(t, "00000").Owner)
	})
}

func TestPoolHandlerWithoutProgressIsCancelledAndCalledAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		events := &recorder{}
		c, link := w.client("0", lease.WithObserver(events.Observe))
		calls := 0
		var stuck time.Duration
		m := w.run(&member{client: c, link: link}, func(ctx context.Context, l *pool.Work) error {
			if calls++; calls > 1 {
				return pool.ErrDone
			}
			for range 10 {
				time.Sleep(25 * time.Second)
				l.Progress()
			}
			for range 10 {
				time.Sleep(25 * time.Second)
				if err := l.Save(ctx, []byte("x")); err != nil {
					return err
				}
			}
			began := time.Now()
			<-ctx.Done()
			stuck = time.Since(began)
			if cause := context.Cause(ctx); !errors.Is(cause, pool.ErrStuck) {
				return cause
			}
			return nil
		}, pool.WithProgressTimeout(30*time.Second))
		require.NoError(t, <-m.ended)
		require.Equal(t, 2, calls)
		require.InDelta(t, 30, stuck.Seconds(), 4)
		require.NoError(t, c.Close(t.Context()))
		require.Len(t, events.Of(pool.EventStuck), 1)
	})
}

func TestPoolEndsWithItsClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(3)
		m := w.member("0", b.handler("0"))
		b.await(t, time.Minute, 3, 1)
		require.NoError(t, m.client.Close(t.Context()))
		require.ErrorIs(t, <-m.ended, lease.ErrClosed)
		require.Empty(t, b.load())
		require.Empty(t, w.rows("session/"))
		require.ErrorIs(t, m.Run(t.Context()), lease.ErrClosed)
	})
}

func TestPoolIsRunOncePerClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		m := w.member("0", b.handler("0"))
		time.Sleep(time.Second)
		require.ErrorIs(t, m.Run(t.Context()), lease.ErrInvalid)
		other, err := pool.New(m.client, "p", b.handler("0"))
		require.NoError(t, err)
		require.ErrorIs(t, other.Run(t.Context()), lease.ErrInvalid)
		m.leave(t)
		w.partitions(1)
		w.run(m, b.handler("0"))
		b.await(t, time.Minute, 1, 1)
		m.leave(t)
	})
}
