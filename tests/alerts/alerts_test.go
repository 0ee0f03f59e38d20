package alerts_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// conditions bring each alert about. Each says which others come with it.
var conditions = map[string]struct {
	bring func(t *testing.T, f *fleet)
	also  []string
	may   string
}{
	"DynalockSessionKilled": {
		also: []string{"DynalockSessionLost"},
		bring: func(t *testing.T, f *fleet) {
			p := f.start(f.store)
			f.hold(p, "key")
			f.run(time.Minute)
			require.NoError(t, f.store.Delete(t.Context(), "session/"+p.Session()))
			f.run(time.Minute)
		},
	},
	"DynalockSessionLost": {
		bring: func(t *testing.T, f *fleet) {
			p := f.start(f.store)
			l := f.hold(p, "key")
			f.run(2*time.Minute + 7*time.Second)
			p.fail(&kv.UncertainError{Err: context.DeadlineExceeded})
			<-l.Context().Done() // between two scrapes
			p.fail(nil)
			f.run(time.Minute)
		},
	},
	"DynalockTrustLow": {
		bring: func(_ *testing.T, f *fleet) {
			p := f.start(f.store, lease.WithTTL(2*time.Minute))
			l := f.hold(p, "key")
			f.run(2 * time.Minute)
			p.fail(&kv.UncertainError{Err: context.DeadlineExceeded})
			for l.Remaining() > 35*time.Second {
				f.run(interval)
			}
			p.fail(nil)
			f.run(time.Minute)
		},
	},
	"DynalockSessionOverdue": {
		also: []string{"DynalockTrustLow"}, may: "DynalockSessionLost", // the silent one is scraped here
		bring: func(t *testing.T, f *fleet) {
			p, q := f.start(f.store, lease.WithTTL(2*time.Minute)), f.start(f.store)
			f.hold(p, "key")
			go func() { _, _ = q.Acquire(t.Context(), "key") }()
			f.run(time.Minute)
			p.fail(&kv.UncertainError{Err: context.DeadlineExceeded})
			f.run(100 * time.Second)
		},
	},
	"DynalockNoLeader": {
		also: []string{"DynalockSessionLost"}, may: "DynalockTrustLow", // if a scrape falls into its last seconds
		bring: func(_ *testing.T, f *fleet) {
			a, b := f.start(f.store), f.start(f.store)
			f.campaign(a, "boss")
			f.campaign(b, "boss")
			f.run(2 * time.Minute)
			for _, p := range []*process{a, b} {
				p.fail(&kv.UncertainError{Err: context.DeadlineExceeded})
			}
			f.run(2 * time.Minute)
		},
	},
	"DynalockTwoLeaders": {
		bring: func(_ *testing.T, f *fleet) {
			f.campaign(f.start(f.store), "boss")
			f.campaign(f.start(memkv.New()), "boss") // another partition of the table, say
			f.run(2 * time.Minute)
		},
	},
	"DynalockAcquireSlow": {
		bring: func(t *testing.T, f *fleet) {
			a, b := f.start(f.store), f.start(f.store)
			for range 10 { // so that there are rates
				require.NoError(t, f.hold(b, "other").Release(t.Context()))
			}
			l := f.hold(a, "key")
			var waiting sync.WaitGroup
			waiting.Go(func() {
				l, err := b.Acquire(t.Context(), "key")
				if err == nil {
					_ = l.Release(t.Context())
				}
			})
			f.run(2 * time.Minute)
			require.NoError(t, l.Release(t.Context()))
			waiting.Wait()
			f.run(time.Minute)
		},
	},
	"DynalockThrottled": {
		bring: func(t *testing.T, f *fleet) {
			p := f.start(f.store)
			f.hold(p, "key")
			f.run(10 * time.Minute)
			p.fail(kv.ErrThrottled)
			_, err := p.TryAcquire(t.Context(), "other") // once: the series begins at 1
			require.ErrorIs(t, err, kv.ErrThrottled)
			p.fail(nil)
			f.run(time.Minute)
		},
	},
	"DynalockEventsDropped": {
		bring: func(t *testing.T, f *fleet) {
			p := f.start(f.store)
			p.slow(t, f)
			f.run(time.Minute)
		},
	},
}

// slow gives the process another client, whose observer is slow for a while.
func (p *process) slow(t *testing.T, f *fleet) {
	t.Helper()
	count := p.metrics.Observer()
	client, err := lease.New(memkv.New(), lease.WithTTL(time.Hour), lease.WithObserver(func(e lease.Event) {
		count(e)
		if e.Type == lease.EventSessionOpened {
			time.Sleep(2 * time.Minute)
		}
	}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	for n := range 6_000 {
		l, err := client.Acquire(t.Context(), "key")
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
		if n == 0 {
			f.run(time.Minute)
		}
	}
	f.run(2 * time.Minute)
	l, err := client.Acquire(t.Context(), "key") // which tells how many were dropped
	require.NoError(t, err)
	require.NoError(t, l.Release(t.Context()))
}

func TestEachAlertFiresOnItsCondition(t *testing.T) {
	t.Parallel()
	for _, r := range readRules(t) {
		require.Contains(t, conditions, r.Alert)
		require.NotEmpty(t, r.Annotations["summary"], r.Alert)
		require.NotEmpty(t, r.Annotations["description"], r.Alert)
		require.Contains(t, []string{"page", "warning"}, r.Labels["severity"], r.Alert)
	}
	require.Len(t, readRules(t), len(conditions))
	for alert, c := range conditions {
		t.Run(alert, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t)
				c.bring(t, f)
				want := map[string]bool{alert: true}
				for _, also := range c.also {
					want[also] = true
				}
				fired := f.alerts()
				delete(fired, c.may)
				require.Equal(t, want, fired)
			})
		})
	}
}

func TestHealthyProcessesRaiseNoAlert(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		a, b, c := f.start(f.store), f.start(f.store), f.start(f.store)
		resign := f.campaign(a, "boss")
		f.run(interval)
		f.campaign(b, "boss")
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		for _, p := range []*process{a, b, c, c} {
			work.Go(func() {
				for ctx.Err() == nil {
					l, err := p.Acquire(ctx, "hot")
					if err != nil {
						return
					}
					time.Sleep(time.Second)
					_ = l.Release(ctx)
					_, _ = p.TryAcquire(ctx, "held")
					time.Sleep(time.Second)
				}
			})
		}
		f.hold(c, "held")
		f.run(5 * time.Minute)
		// A deployment: the other leads. That is between the scrapes of the two, so
		// that for a moment both seem to.
		time.AfterFunc(interval/3+time.Second, resign)
		f.run(5 * time.Minute)
		cancel()
		work.Wait()
		require.Empty(t, f.alerts())
	})
}
