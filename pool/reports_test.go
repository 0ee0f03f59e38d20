package pool_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// logged starts a member with a log.
func (w *world) logged(name string, handle pool.Handler, hook kv.Hook, options ...pool.Option) (*member, *syncBuffer) {
	log := &syncBuffer{}
	c, link := w.client(name,
		lease.WithLogger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	link.SetIntercept(hook)
	return w.run(&member{client: c, link: link}, handle, options...), log
}

// require requires a line of the log that contains all of the words.
func (b *syncBuffer) require(t *testing.T, words ...string) {
	t.Helper()
	synctest.Wait()
	for line := range strings.Lines(b.String()) {
		found := true
		for _, word := range words {
			found = found && strings.Contains(line, word)
		}
		if found {
			return
		}
	}
	require.Fail(t, "not logged", "%q in\n%s", words, b.String())
}

// onWritesOf fails the writes of one row with err, after the first so many.
func onWritesOf(key string, after int, err error) kv.Hook {
	return func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if call.Key == key && strings.HasPrefix(call.Op, "Atomic") {
			if after--; after < 0 {
				return err
			}
		}
		return next(ctx)
	}
}

func TestPoolLogsWhatGoesWrongWithAPartition(t *testing.T) {
	t.Parallel()
	const row = "lease/pool/p/00000"
	unknown := &kv.UncertainError{Key: row, Err: errLost}
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		m, log := w.logged("0", b.handler("0"), onWritesOf(row, 0, kv.ErrThrottled))
		time.Sleep(interval)
		log.require(t, "level=WARN", "a partition cannot be had", "pool=p", "partition=00000", "throttled")
		m.leave(t)
	})
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		m, log := w.logged("0", b.handler("0"), onWritesOf(row, 1, unknown))
		b.await(t, time.Second, 1, 1)
		m.leave(t)
		log.require(t, "level=WARN", "given back later", "pool=p", "partition=00000", "answer lost")
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		m, log := w.logged("0", func(ctx context.Context, l *pool.Work) error {
			<-l.Draining()
			return errJob
		}, nil)
		time.Sleep(interval)
		m.leave(t)
		log.require(t, "level=DEBUG", "a handler stopped", "partition=00000", "the job failed")
		require.NotContains(t, log.String(), "level=ERROR", "it was asked to stop")
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.partitions(1)
		m, log := w.logged("0", func(context.Context, *pool.Work) error { return errJob }, nil)
		time.Sleep(time.Second / 10)
		log.require(t, "level=ERROR", "handler failed", "pool=p", "partition=00000", "token=", "the job failed", "again=")
		m.leave(t)
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		require.NoError(t, w.store.Put(t.Context(), row, kv.WithString("{")))
		m, log := w.logged("0", finish, nil)
		time.Sleep(time.Second)
		log.require(t, "level=WARN", "a row of the pool cannot be read", "pool=p", row)
		m.link.failListings(func() error { return errors.New("no route to host") })
		time.Sleep(2 * interval)
		log.require(t, "level=WARN", "the pool cannot be listed", "pool=p", "no route to host")
		m.leave(t)
	})
}

// That another was faster, has a partition, or that it is not wanted any more,
// is as it should be.
func TestPoolDoesNotWarnOfWhatIsAsItShouldBe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		other, _ := w.client("other")
		hook, taken := beforeTaking(func() error {
			_, err := other.TryAcquire(t.Context(), "pool/p/00000", lease.KeepValue())
			return err
		})
		m, log := w.logged("0", b.handler("0"), hook)
		require.NoError(t, <-taken)
		m.link.Take()
		time.Sleep(interval / 20) // the next plan will say that it has to wait
		require.LessOrEqual(t, m.link.Take()["Get"], 1, "it asks after the other, and does not wait")
		require.Empty(t, b.load())
		m.leave(t)
		require.NotContains(t, log.String(), "level=WARN")
	})
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(2)
		first := w.stubborn(b)
		b.await(t, time.Minute, 2, 1)
		m, log := w.logged("0", b.handler("0"), nil)
		time.Sleep(3 * interval)
		m.link.Take()
		time.Sleep(10 * time.Second)
		require.Positive(t, m.link.Take()["Get"], "it waits")
		m.leave(t)
		require.NotContains(t, log.String(), "level=WARN")
		first.stop()
		<-first.ended
	})
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(1)
		tool, _ := w.tool()
		hook, paused := beforeTaking(func() error { return tool.Pause(t.Context(), "00000") })
		m, log := w.logged("0", b.handler("0"), hook)
		require.NoError(t, <-paused)
		time.Sleep(3 * interval)
		require.Empty(t, b.begun)
		m.leave(t)
		require.NotContains(t, log.String(), "level=WARN")
	})
}

// The clients of members that got nothing close without delay.
func TestPoolClaimThatFailedKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	for _, failure := range []error{kv.ErrThrottled, &kv.UncertainError{Key: "lease/pool/p/00000", Err: errLost}} {
		synctest.Test(t, func(t *testing.T) {
			w, b := newWorld(t), newLedger()
			w.partitions(3)
			m, _ := w.logged("0", b.handler("0"), onWritesOf("lease/pool/p/00000", 0, failure))
			b.await(t, time.Minute, 2, 1)
			time.Sleep(3 * interval)
			m.leave(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			began := time.Now()
			require.NoError(t, m.client.Close(ctx))
			require.Less(t, time.Since(began), time.Second)
		})
	}
}
