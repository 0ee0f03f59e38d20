package metrics_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/internal/meter"
	"github.com/dynalock/dynalock/internal/promtext"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/metrics"
	"github.com/dynalock/dynalock/pool"
)

const ttl = 10 * time.Second

// process is a client with metrics of its own, whose way to the store can fail.
type process struct {
	*lease.Client
	metrics *metrics.Metrics
	store   kv.Store
	failure atomic.Pointer[error]
}

// start starts a process. Use it inside a synctest bubble.
func start(t *testing.T, store kv.Store, name string, options ...metrics.Option) *process {
	t.Helper()
	p := &process{metrics: newMetrics(t, options...)}
	failing := kv.Instrument(store, func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
		if failure := p.failure.Load(); failure != nil {
			return *failure
		}
		return next(ctx)
	})
	p.store = kv.Instrument(failing, p.metrics.Hook)
	client, err := lease.New(p.store, lease.WithTTL(ttl), lease.WithOwner(name), lease.WithObserver(p.metrics.Observer()))
	require.NoError(t, err)
	p.Client = client
	t.Cleanup(func() {
		p.failure.Store(nil)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = client.Close(ctx) // the test may have closed it, or left leases on purpose
	})
	return p
}

func (p *process) fail(err error) {
	if err == nil {
		p.failure.Store(nil)
		return
	}
	p.failure.Store(&err)
}

// values are what the process exports once it has been told everything.
func (p *process) values(t *testing.T) map[string]float64 {
	t.Helper()
	synctest.Wait()
	return values(t, p.metrics)
}

func TestAProcessUnderLoadShowsWhatItWentThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := start(t, store, "a"), start(t, store, "b")
		acquire := func(p *process, key string, options ...lease.AcquireOption) *lease.Lease {
			l, err := p.Acquire(t.Context(), key, options...)
			require.NoError(t, err)
			return l
		}

		var work sync.WaitGroup // contention within a, and between a and b
		for _, p := range []*process{a, a, a, b, b} {
			work.Go(func() {
				for range 20 {
					l := acquire(p, "secret-hot")
					time.Sleep(100 * time.Millisecond)
					require.NoError(t, l.Release(t.Context()))
				}
			})
		}
		work.Wait()
		at := a.values(t)
		require.InDelta(t, 60, at[`dynalock_acquire_duration_seconds_count{outcome="acquired"}`], 0)
		require.InDelta(t, 60, at[`dynalock_hold_duration_seconds_count{reason="released"}`], 0)
		require.InDelta(t, 6, at[`dynalock_hold_duration_seconds_sum{reason="released"}`], 0.1)
		require.Zero(t, at["dynalock_leases_held"])
		require.Zero(t, at["dynalock_acquires_waiting"])

		held := acquire(a, "secret-held")
		_, err := b.TryAcquire(t.Context(), "secret-held")
		require.ErrorIs(t, err, lease.ErrHeld)
		short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		waiting := make(chan error, 1)
		go func() {
			_, err := b.Acquire(short, "secret-held")
			waiting <- err
		}()
		time.Sleep(time.Second)
		require.InDelta(t, 1, a.values(t)["dynalock_leases_held"], 0)
		require.InDelta(t, 1, b.values(t)["dynalock_acquires_waiting"], 0)
		require.ErrorIs(t, <-waiting, context.DeadlineExceeded)
		at = b.values(t)
		require.Zero(t, at["dynalock_acquires_waiting"])
		require.InDelta(t, 1, at[`dynalock_acquire_duration_seconds_count{outcome="refused"}`], 0)
		require.InDelta(t, 1, at[`dynalock_acquire_duration_seconds_count{outcome="gave_up"}`], 0)
		require.InDelta(t, 3, at[`dynalock_acquire_duration_seconds_sum{outcome="gave_up"}`], 0.1)

		b.fail(kv.ErrTooLarge)
		_, err = b.TryAcquire(t.Context(), "secret-other")
		require.ErrorIs(t, err, kv.ErrTooLarge)
		b.fail(nil)
		require.InDelta(t, 1, b.values(t)[`dynalock_acquire_duration_seconds_count{outcome="error"}`], 0)

		limited := acquire(a, "secret-limited", lease.WithMaxHold(time.Second))
		<-limited.Context().Done()
		broken := acquire(a, "secret-broken")
		holder, err := b.Inspect(t.Context(), "secret-broken")
		require.NoError(t, err)
		require.NoError(t, b.Break(t.Context(), holder))
		<-broken.Context().Done()
		at = a.values(t)
		require.InDelta(t, 1, at[`dynalock_leases_lost_total{reason="max_hold"}`], 0)
		require.InDelta(t, 1, at[`dynalock_leases_lost_total{reason="revoked"}`], 0)

		go func() {
			l, err := b.Acquire(t.Context(), "secret-held")
			if err == nil {
				_ = l.Release(context.WithoutCancel(t.Context()))
			}
			waiting <- err
		}()
		a.fail(kv.ErrThrottled)
		<-held.Context().Done()
		at = a.values(t)
		require.InDelta(t, 1, at[`dynalock_sessions_lost_total{reason="expired"}`], 0)
		require.Positive(t, at[`dynalock_heartbeat_failures_total`])
		require.Positive(t, at[`dynalock_store_request_duration_seconds_count{operation="AtomicPut",outcome="throttled"}`])
		require.NotContains(t, at, "dynalock_session_trust_seconds")
		require.NoError(t, <-waiting)
		at = b.values(t)
		require.InDelta(t, 1, at["dynalock_sessions_killed_total"], 0)
		require.InDelta(t, 1, at["dynalock_takeovers_total"], 0)
		require.Positive(t, at[`dynalock_store_request_duration_seconds_count{operation="Get",outcome="ok"}`])
		require.Positive(t, at[`dynalock_store_request_duration_seconds_count{operation="AtomicPut",outcome="conflict"}`])
		require.InDelta(t, 10, at["dynalock_session_ttl_seconds"], 0)

		for _, p := range []*process{a, b} {
			require.NotContains(t, text(t, p.metrics), "secret")
		}
	})
}

func TestAProcessThatIsKilledSaysSo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a := start(t, store, "a")
		l, err := a.Acquire(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, store.Delete(t.Context(), "session/"+a.Session()))
		<-l.Context().Done()
		at := a.values(t)
		require.InDelta(t, 1, at[`dynalock_sessions_lost_total{reason="killed"}`], 0)
		require.InDelta(t, 1, at[`dynalock_leases_lost_total{reason="killed"}`], 0)
		require.InDelta(t, 1, at[`dynalock_hold_duration_seconds_count{reason="killed"}`], 0)
		require.Zero(t, at["dynalock_leases_held"])
	})
}

func TestAnElectionShowsWhoLeads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const leader = `dynalock_election_leader{election="boss"}`
		const transitions = `dynalock_election_transitions_total{election="boss"}`
		store := memkv.New()
		var terms [2]context.CancelFunc
		var processes [2]*process
		for n := range processes {
			p := start(t, store, "p")
			e, err := election.New(p.Client, "boss")
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			processes[n], terms[n] = p, cancel
			go func() {
				_ = e.Run(ctx, func(ctx context.Context, _ *election.Term) error {
					<-ctx.Done()
					return nil
				})
			}()
			time.Sleep(time.Second)
		}
		defer terms[1]()
		require.Equal(t, []float64{1, 1}, []float64{processes[0].values(t)[leader], processes[0].values(t)[transitions]})
		at := processes[1].values(t)
		require.Contains(t, at, leader)
		require.Equal(t, []float64{0, 0}, []float64{at[leader], at[transitions]})
		terms[0]()
		time.Sleep(3 * time.Second)
		require.Equal(t, []float64{0, 1}, []float64{processes[0].values(t)[leader], processes[0].values(t)[transitions]})
		require.Equal(t, []float64{1, 1}, []float64{processes[1].values(t)[leader], processes[1].values(t)[transitions]})
	})
}

func TestAPoolShowsItsPartitions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const age = `dynalock_pool_checkpoint_age_seconds{pool="jobs"}`
		partitions := func(state string) string { return `dynalock_pool_partitions{pool="jobs",state="` + state + `"}` }
		p := start(t, memkv.New(), "p")
		var saves atomic.Bool
		saves.Store(true)
		jobs, err := pool.New(p.Client, "jobs", func(ctx context.Context, w *pool.Work) error {
			switch w.Name() {
			case "done":
				return pool.ErrDone
			case "bad":
				return errors.New("broken")
			}
			for ctx.Err() == nil {
				if saves.Load() {
					_ = w.Save(ctx, []byte("checkpoint"))
				}
				select {
				case <-ctx.Done():
				case <-w.Draining():
					return nil
				case <-time.After(5 * time.Second):
				}
			}
			return nil
		}, pool.WithoutEnd())
		require.NoError(t, err)
		require.NoError(t, jobs.Add(t.Context(), "done", "bad", "one", "two", "rests"))
		require.NoError(t, jobs.Pause(t.Context(), "rests"))
		require.NoError(t, p.metrics.CountPartitions("jobs", jobs.Partitions(t.Context())))
		at := p.values(t)
		require.Equal(t, []float64{0, 4, 1, 0},
			[]float64{at[partitions("held")], at[partitions("idle")], at[partitions("paused")], at[partitions("done")]})

		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- jobs.Run(ctx) }()
		count := func() map[string]float64 {
			require.NoError(t, p.metrics.CountPartitions("jobs", jobs.Partitions(t.Context())))
			return p.values(t)
		}
		for range 12 {
			time.Sleep(10 * time.Second)
			at = count()
		}
		require.Equal(t, []float64{3, 0, 1, 1, 0}, []float64{
			at[partitions("held")], at[partitions("idle")], at[partitions("paused")], at[partitions("done")],
			at[partitions("removed")],
		})
		require.Positive(t, at[`dynalock_pool_handler_failures_total{pool="jobs",state="failed"}`])
		require.Contains(t, at, `dynalock_pool_handler_failures_total{pool="jobs",state="stuck"}`)
		require.InDelta(t, 110, at[age], 15, "the one that fails has no checkpoint")

		require.NoError(t, jobs.Pause(t.Context(), "bad"))
		require.InDelta(t, 0, count()[age], 10, "the others save theirs")
		saves.Store(false)
		for range 6 {
			time.Sleep(10 * time.Second)
			at = count()
		}
		require.InDelta(t, 60, at[age], 10)
		time.Sleep(10 * time.Second)
		require.InDelta(t, at[age]+10, p.values(t)[age], 0.01, "it grows between listings")

		failed := errors.New("no listing")
		err = p.metrics.CountPartitions("jobs", func(yield func(*pool.Partition, error) bool) { yield(nil, failed) })
		require.ErrorIs(t, err, failed)
		require.InDelta(t, 1, p.values(t)[partitions("done")], 0, "as it was")
		for _, bad := range []string{"", "a/b"} {
			require.ErrorIs(t, p.metrics.CountPartitions(bad, jobs.Partitions(t.Context())), lease.ErrInvalid)
		}
		require.ErrorIs(t, p.metrics.CountPartitions("jobs", nil), lease.ErrInvalid)
		cancel()
		require.NoError(t, <-ended)
		require.Zero(t, p.values(t)[partitions("held")])
	})
}

// Every metric of the table is there after such a life.
func TestEachInstrumentIsExported(t *testing.T) {
	t.Parallel()
	m := newMetrics(t)
	observe := m.Observer()
	for _, e := range []lease.Event{
		{Type: lease.EventSessionOpened, Session: "s", TTL: time.Minute, Remaining: time.Minute, Time: time.Now()},
		{Type: lease.EventAcquired, Key: "election/e", Session: "s"},
		{Type: lease.EventAcquired, Key: "pool/p/1", Session: "s"},
		{Type: lease.EventReleased, Key: "election/e", Session: "s"},
		{Type: lease.EventHeartbeat, Session: "s", Remaining: time.Minute},
	} {
		observe(e)
	}
	require.NoError(t, m.CountPartitions("p", func(func(*pool.Partition, error) bool) {}))
	require.NoError(t, m.Hook(t.Context(), kv.Call{Op: "Get"}, func(context.Context) error { return nil }))
	families, err := promtext.Parse(text(t, m))
	require.NoError(t, err)
	var names, want []string
	for _, f := range families {
		names = append(names, f.Name)
	}
	for _, i := range meter.All {
		want = append(want, i.PrometheusName())
	}
	require.Equal(t, want, names)
}
