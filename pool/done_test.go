package pool_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// finisher starts a member whose handler is done d after its context has ended,
// and returns its log.
func (w *world) finisher(d time.Duration) (*member, *syncBuffer) {
	w.partitions(1)
	log := &syncBuffer{}
	c, link := w.client("finisher", lease.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	m := w.run(&member{client: c, link: link}, func(ctx context.Context, l *pool.Work) error {
		if err := l.Save(ctx, []byte("half")); err != nil {
			return err
		}
		<-ctx.Done()
		time.Sleep(d)
		return pool.ErrDone
	})
	time.Sleep(interval)
	return m, log
}

// done reports whether the row of the partition says that it is done.
func (w *world) done() bool {
	p, _ := w.tool()
	row := (&member{Pool: p}).status(w.t, "00000")
	require.Equal(w.t, "half", string(row.Checkpoint))
	return row.Done
}

func TestPoolPartitionThatIsDoneWhileItsClientClosesStaysDone(t *testing.T) {
	t.Parallel()
	for _, late := range []time.Duration{0, time.Second, ttl} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			m, _ := w.finisher(late)
			require.NoError(t, m.client.Close(t.Context()))
			require.ErrorIs(t, <-m.ended, lease.ErrClosed)
			require.True(t, w.done(), "%v late", late)
			require.Empty(t, w.rows("session/"))
		})
	}
}

// Where the row cannot say that the partition is done, somebody will work on it
// again, and the log says so.
func TestPoolEndOfAPartitionThatCannotBeWrittenIsTold(t *testing.T) {
	t.Parallel()
	const again = "may be worked on again"
	for name, lose := range map[string]func(w *world, m *member){
		"Close does not wait": func(_ *world, m *member) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			_ = m.client.Close(ctx) // the handler goes on
		},
		"the store does not answer": func(_ *world, m *member) {
			m.link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
				if call.Key == "lease/pool/p/00000" {
					return &kv.UncertainError{Key: call.Key, Err: errLost}
				}
				return next(ctx)
			})
			_ = m.client.Close(context.Background())
		},
		"the lease is lost": func(w *world, m *member) {
			for _, session := range w.rows("session/") {
				require.NoError(w.t, w.store.Delete(context.Background(), session))
			}
			time.Sleep(ttl)
			m.stop()
		},
		"the lease is revoked": func(w *world, m *member) {
			c, _ := w.client("operator")
			require.NoError(w.t, c.Break(context.Background(), inspect(w.t, c, "pool/p/00000")))
			m.stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				m, log := w.finisher(3 * time.Second)
				lose(w, m)
				<-m.ended
				require.Contains(t, log.String(), again)
				require.Contains(t, log.String(), "partition=00000")
			})
		})
	}
	t.Run("all is well", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			m, log := w.finisher(3 * time.Second)
			require.NoError(t, m.client.Close(t.Context()))
			<-m.ended
			require.True(t, w.done())
			require.NotContains(t, log.String(), again)
		})
	})
}
