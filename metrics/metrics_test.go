package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/meter"
	"github.com/dynalock/dynalock/internal/promtext"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/metrics"
)

func newMetrics(t *testing.T, options ...metrics.Option) *metrics.Metrics {
	t.Helper()
	m, err := metrics.New(options...)
	require.NoError(t, err)
	return m
}

// text is what is exported.
func text(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	var b strings.Builder
	require.NoError(t, m.WritePrometheus(&b))
	return b.String()
}

// values are the exported values, without buckets.
func values(t *testing.T, m *metrics.Metrics) map[string]float64 {
	t.Helper()
	families, err := promtext.Parse(text(t, m))
	require.NoError(t, err)
	all := promtext.Values(families)
	maps.DeleteFunc(all, func(series string, _ float64) bool { return strings.Contains(series, "_bucket{") })
	return all
}

// moved returns what do changes.
func moved(t *testing.T, m *metrics.Metrics, do func()) map[string]float64 {
	t.Helper()
	before := values(t, m)
	do()
	changes := map[string]float64{}
	for series, value := range values(t, m) {
		if change := value - before[series]; change != 0 {
			changes[series] = change
		}
	}
	return changes
}

func TestEachEventMovesItsMetrics(t *testing.T) {
	t.Parallel()
	const acquire, hold = "dynalock_acquire_duration_seconds", "dynalock_hold_duration_seconds"
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t)
		observe := m.Observer()
		const second = time.Second
		for _, c := range []struct {
			name  string
			event lease.Event
			want  map[string]float64
		}{
			{"opened",
				lease.Event{Type: lease.EventSessionOpened, Session: "s", TTL: 15 * second, Remaining: 12 * second},
				map[string]float64{
					"dynalock_sessions_opened_total": 1, "dynalock_session_ttl_seconds": 15, "dynalock_session_trust_seconds": 12,
				}},
			{"heartbeat",
				lease.Event{Type: lease.EventHeartbeat, Session: "s", Remaining: 13 * second, Took: second / 2},
				map[string]float64{
					"dynalock_heartbeat_duration_seconds_sum": 0.5, "dynalock_heartbeat_duration_seconds_count": 1,
					"dynalock_session_trust_seconds": 1,
				}},
			{"jeopardy",
				lease.Event{Type: lease.EventJeopardy, Session: "s", Remaining: 10 * second, Err: broken},
				map[string]float64{"dynalock_heartbeat_failures_total": 1, "dynalock_session_trust_seconds": -3}},
			{"acquired at once",
				lease.Event{Type: lease.EventAcquired, Session: "s", Key: "k1", Call: 1, Waited: second},
				map[string]float64{
					acquire + `_sum{outcome="acquired"}`: 1, acquire + `_count{outcome="acquired"}`: 1, "dynalock_leases_held": 1,
				}},
			{"waiting",
				lease.Event{Type: lease.EventWaiting, Key: "k2", Call: 2},
				map[string]float64{"dynalock_acquires_waiting": 1}},
			{"waiting, told again",
				lease.Event{Type: lease.EventWaiting, Key: "k2", Call: 2, Err: broken}, map[string]float64{}},
			{"another waiting",
				lease.Event{Type: lease.EventWaiting, Key: "k2", Call: 3},
				map[string]float64{"dynalock_acquires_waiting": 1}},
			{"taken over",
				lease.Event{Type: lease.EventAcquired, Session: "s", Key: "k2", Call: 2, TakenOver: true},
				map[string]float64{
					acquire + `_count{outcome="acquired"}`: 1, "dynalock_leases_held": 1, "dynalock_acquires_waiting": -1,
					"dynalock_takeovers_total": 1,
				}},
			{"granted too late to be wanted",
				lease.Event{Type: lease.EventGaveUp, Key: "k2", Call: 2},
				map[string]float64{acquire + `_count{outcome="gave_up"}`: 1}},
			{"gave up",
				lease.Event{Type: lease.EventGaveUp, Key: "k2", Call: 3, Waited: 2 * second},
				map[string]float64{
					acquire + `_sum{outcome="gave_up"}`: 2, acquire + `_count{outcome="gave_up"}`: 1,
					"dynalock_acquires_waiting": -1,
				}},
			{"failed",
				lease.Event{Type: lease.EventGaveUp, Key: "k2", Call: 4, Err: broken},
				map[string]float64{acquire + `_count{outcome="error"}`: 1}},
			{"refused",
				lease.Event{Type: lease.EventRefused, Key: "k2", Call: 5},
				map[string]float64{acquire + `_count{outcome="refused"}`: 1}},
			{"released",
				lease.Event{Type: lease.EventReleased, Session: "s", Key: "k1", Held: 4 * second},
				map[string]float64{
					hold + `_sum{reason="released"}`: 4, hold + `_count{reason="released"}`: 1, "dynalock_leases_held": -1,
				}},
			{"held too long",
				lease.Event{Type: lease.EventLost, Session: "s", Key: "k2", Held: 4 * second, Reason: lease.ReasonMaxHold},
				map[string]float64{
					hold + `_sum{reason="max_hold"}`: 4, hold + `_count{reason="max_hold"}`: 1, "dynalock_leases_held": -1,
					`dynalock_leases_lost_total{reason="max_hold"}`: 1,
				}},
			{"found another overdue",
				lease.Event{Type: lease.EventSessionOverdue, Session: "x", Owner: "o", TTL: 15 * second},
				map[string]float64{"dynalock_sessions_overdue_total": 1}},
			{"killed another",
				lease.Event{Type: lease.EventSessionKilled, Session: "x", Owner: "o"},
				map[string]float64{"dynalock_sessions_killed_total": 1}},
			{"dropped",
				lease.Event{Type: lease.EventHeartbeat, Session: "x", Dropped: 7},
				map[string]float64{
					"dynalock_events_dropped_total": 7, "dynalock_heartbeat_duration_seconds_count": 1,
				}},
			{"lost",
				lease.Event{Type: lease.EventSessionLost, Session: "s", Reason: lease.ReasonKilled},
				map[string]float64{`dynalock_sessions_lost_total{reason="killed"}`: 1}},
			{"opened again",
				lease.Event{Type: lease.EventSessionOpened, Session: "t", TTL: 15 * second, Remaining: 12 * second},
				map[string]float64{
					"dynalock_sessions_opened_total": 1, "dynalock_session_ttl_seconds": 15, "dynalock_session_trust_seconds": 12,
				}},
			{"closed", lease.Event{Type: lease.EventSessionClosed, Session: "t"}, map[string]float64{}},
			{"unknown", lease.Event{Type: "of a later version", Session: "t", Key: "k"}, map[string]float64{}},
		} {
			c.event.Time = time.Now()
			require.Equal(t, c.want, moved(t, m, func() { observe(c.event) }), c.name)
		}
	})
}

// What an alert takes the increase of is there before it moves: Prometheus sees
// no increase in a series that begins at 1.
func TestCountersAreThereFromTheStart(t *testing.T) {
	t.Parallel()
	for _, series := range []string{
		`dynalock_sessions_lost_total{reason="killed"}`, `dynalock_sessions_lost_total{reason="expired"}`,
		"dynalock_sessions_opened_total", `dynalock_leases_lost_total{reason="max_hold"}`,
		"dynalock_sessions_overdue_total", "dynalock_sessions_killed_total", "dynalock_events_dropped_total", "dynalock_heartbeat_failures_total",
		"dynalock_leases_held", "dynalock_acquires_waiting", "dynalock_takeovers_total",
	} {
		require.Contains(t, values(t, newMetrics(t)), series)
	}
}

func TestAHistogramCountsWhatIsAtABoundIntoItsBucket(t *testing.T) {
	t.Parallel()
	m := newMetrics(t)
	observe := m.Observer()
	for _, took := range []time.Duration{0, time.Millisecond, time.Millisecond + 1, 10 * time.Second, time.Minute} {
		observe(lease.Event{Type: lease.EventHeartbeat, Took: took})
	}
	exported := text(t, m)
	for _, line := range []string{
		`dynalock_heartbeat_duration_seconds_bucket{le="0.001"} 2`,
		`dynalock_heartbeat_duration_seconds_bucket{le="0.0025"} 3`,
		`dynalock_heartbeat_duration_seconds_bucket{le="10"} 4`, `dynalock_heartbeat_duration_seconds_bucket{le="+Inf"} 5`,
		`dynalock_heartbeat_duration_seconds_count 5`, `dynalock_heartbeat_duration_seconds_sum 70.002000001`,
	} {
		require.Contains(t, exported, line+"\n")
	}
}

func TestRequestsAreToldByOperationAndOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t)
		for err, outcome := range map[error]string{
			nil:                         "ok",
			&kv.NotFoundError{Key: "k"}: "ok",
			&kv.ConflictError{Key: "k"}: "conflict",
			&kv.ConflictError{Key: "k", Create: true}:               "conflict",
			&kv.UncertainError{Key: "k", Err: context.Canceled}:     "uncertain",
			fmt.Errorf("%w, %w", kv.ErrThrottled, context.Canceled): "throttled",
			kv.ErrClock:               "unavailable",
			context.DeadlineExceeded:  "unavailable",
			io.ErrUnexpectedEOF:       "unavailable",
			context.Canceled:          "canceled",
			kv.ErrTooLarge:            "refused",
			kv.ErrInvalidKey:          "refused",
			kv.ErrInvalidOption:       "refused",
			kv.ErrReservedField:       "refused",
			kv.ErrIndexNotSupported:   "refused",
			kv.ErrUnsupported:         "refused",
			kv.ErrClosed:              "refused",
			&kv.FormatError{Key: "k"}: "refused",
		} {
			series := fmt.Sprintf(`{operation="Get",outcome=%q}`, outcome)
			require.Equal(t, map[string]float64{
				"dynalock_store_request_duration_seconds_count" + series: 1,
				"dynalock_store_request_duration_seconds_sum" + series:   2,
			}, moved(t, m, func() {
				require.Equal(t, err, m.Hook(t.Context(), kv.Call{Op: "Get", Key: "secret"}, func(ctx context.Context) error {
					require.Equal(t, t.Context(), ctx)
					time.Sleep(2 * time.Second)
					return err
				}))
			}), "%v", err)
		}
		require.NotContains(t, text(t, m), "secret")
	})
}

func TestTrustIsComputedWhenSomebodyLooks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMetrics(t)
		observe, second := m.Observer(), m.Observer()
		opened := func(session string, ttl, remaining time.Duration) lease.Event {
			return lease.Event{
				Type: lease.EventSessionOpened, Time: time.Now(), Session: session, TTL: ttl, Remaining: remaining,
			}
		}
		require.NotContains(t, values(t, m), "dynalock_session_trust_seconds", "there is no session")
		observe(opened("a", 10*time.Second, 9*time.Second))
		time.Sleep(4 * time.Second)
		require.InDelta(t, 5, values(t, m)["dynalock_session_trust_seconds"], 1e-9)
		second(opened("b", time.Minute, 20*time.Second))
		require.InDelta(t, 20, values(t, m)["dynalock_session_trust_seconds"], 1e-9, "a third is less than a half")
		require.InDelta(t, 60, values(t, m)["dynalock_session_ttl_seconds"], 1e-9)
		time.Sleep(4 * time.Second)
		require.InDelta(t, 1, values(t, m)["dynalock_session_trust_seconds"], 1e-9)
		time.Sleep(time.Hour)
		require.Zero(t, values(t, m)["dynalock_session_trust_seconds"])

		late := opened("c", 10*time.Second, 9*time.Second)
		for _, session := range []string{"a", "b"} {
			observe(lease.Event{Type: lease.EventSessionLost, Session: session, Reason: lease.ReasonExpired})
			second(lease.Event{Type: lease.EventSessionLost, Session: session, Reason: lease.ReasonExpired})
		}
		time.Sleep(3 * time.Second)
		observe(late)
		require.InDelta(t, 6, values(t, m)["dynalock_session_trust_seconds"], 1e-9, "from the event on")
	})
}

func TestLeadershipShowsFromTheFirstCampaignOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const leader = `dynalock_election_leader{election="e"}`
		const transitions = `dynalock_election_transitions_total{election="e"}`
		m := newMetrics(t)
		observe := m.Observer()
		told := func(e lease.Event) map[string]float64 {
			e.Time = time.Now()
			observe(e)
			return values(t, m)
		}
		require.NotContains(t, values(t, m), leader)
		told(lease.Event{Type: lease.EventSessionOpened, Session: "s", TTL: 10 * time.Second, Remaining: 9 * time.Second})
		at := told(lease.Event{Type: lease.EventWaiting, Key: "election/e", Call: 1})
		require.Contains(t, at, leader)
		require.Zero(t, at[leader])
		require.Contains(t, at, transitions, "so that the first is an increase")
		at = told(lease.Event{Type: lease.EventAcquired, Key: "election/e", Session: "s", Call: 1})
		require.Equal(t, []float64{1, 1}, []float64{at[leader], at[transitions]})
		time.Sleep(8 * time.Second)
		require.InDelta(t, 1, values(t, m)[leader], 0)
		time.Sleep(time.Second)
		require.Zero(t, values(t, m)[leader], "its trust is over, whatever has been told")
		told(lease.Event{Type: lease.EventHeartbeat, Session: "s", Remaining: 9 * time.Second})
		require.InDelta(t, 1, values(t, m)[leader], 0)
		at = told(lease.Event{Type: lease.EventReleased, Key: "election/e", Session: "s"})
		require.Equal(t, []float64{0, 1}, []float64{at[leader], at[transitions]})
	})
}

func TestKeysAreShownOnlyAsTheirLabels(t *testing.T) {
	t.Parallel()
	events := []lease.Event{
		{Type: lease.EventWaiting, Key: "tenant/secret", Call: 1},
		{Type: lease.EventAcquired, Key: "tenant/secret", Call: 1, TakenOver: true},
		{Type: lease.EventLost, Key: "tenant/secret", Reason: lease.ReasonBroken},
		{Type: lease.EventRefused, Key: "tenant/secret", Call: 2},
		{Type: lease.EventAcquired, Key: "other", Call: 3},
	}
	plain := newMetrics(t)
	count := plain.Observer()
	for _, e := range events {
		count(e)
	}
	require.NotContains(t, text(t, plain), "secret")
	require.NotContains(t, text(t, plain), "key=")

	m := newMetrics(t, metrics.WithKeyLabel(func(key string) string {
		group, _, grouped := strings.Cut(key, "/")
		if !grouped {
			return ""
		}
		return group + "\"\n\\\xff"
	}))
	count = m.Observer()
	for _, e := range events {
		count(e)
	}
	require.NotContains(t, text(t, m), "secret")
	at := values(t, m)
	key := `"tenant\"\n\\` + "\uFFFD\""
	require.InDelta(t, 1, at[`dynalock_acquire_duration_seconds_count{key=`+key+`,outcome="acquired"}`], 0)
	require.InDelta(t, 1, at[`dynalock_hold_duration_seconds_count{key=`+key+`,reason="broken"}`], 0)
	require.InDelta(t, 1, at[`dynalock_leases_lost_total{key=`+key+`,reason="broken"}`], 0)
	require.InDelta(t, 1, at[`dynalock_takeovers_total{key=`+key+`}`], 0)
	require.Contains(t, at, `dynalock_leases_held{key=`+key+`}`)
	require.Contains(t, at, `dynalock_acquires_waiting{key=`+key+`}`)
	require.InDelta(t, 1, at["dynalock_leases_held"], 0, "no label, no attribute")
}

func TestSeriesAreBounded(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, metrics.WithKeyLabel(func(key string) string { return key }))
	observe := m.Observer()
	const many = metrics.MaxSeries + 500
	for n := range many {
		observe(lease.Event{Type: lease.EventAcquired, Key: fmt.Sprint(n), Session: "s"})
		observe(lease.Event{Type: lease.EventAcquired, Key: fmt.Sprint("election/", n), Session: "s"})
		observe(lease.Event{Type: lease.EventAcquired, Key: fmt.Sprint("pool/", n, "/p"), Session: "s"})
	}
	at, series, leases := values(t, m), map[string]int{}, 0.0
	for name, value := range at {
		metric, _, _ := strings.Cut(name, "{")
		series[metric]++
		if metric == "dynalock_leases_held" {
			leases += value
		}
	}
	for metric, n := range series {
		require.LessOrEqual(t, n, metrics.MaxSeries+1, metric) // and "other"
	}
	require.InDelta(t, 3*many, leases, 0, "what is not told apart is counted all the same")
	require.InDelta(t, 3*many-metrics.MaxSeries, at[`dynalock_leases_held{key="other"}`], 0)
	require.Equal(t, metrics.MaxNames, series["dynalock_election_leader"])
	require.Equal(t, metrics.MaxNames, series["dynalock_pool_partitions"])
	require.Equal(t, 2*metrics.MaxNames, series["dynalock_pool_handler_failures_total"])
}

func TestCountingTakesNoMemory(t *testing.T) {
	for name, m := range map[string]*metrics.Metrics{
		"plain":   newMetrics(t),
		"labeled": newMetrics(t, metrics.WithKeyLabel(func(key string) string { return key[:1] })),
	} {
		observe := m.Observer()
		observe(lease.Event{Type: lease.EventSessionOpened, Session: "s", TTL: time.Minute, Remaining: time.Minute})
		call := uint64(0)
		next := func(context.Context) error { return nil }
		ctx, hook := t.Context(), m.Hook
		failures := []error{nil, kv.ErrThrottled, kv.ErrKeyExists, context.DeadlineExceeded}
		fail := func(context.Context) error { call++; return failures[call%4] }
		for what, do := range map[string]func(){
			"heartbeat": func() { observe(lease.Event{Type: lease.EventHeartbeat, Session: "s", Took: time.Second}) },
			"jeopardy":  func() { observe(lease.Event{Type: lease.EventJeopardy, Session: "s", Err: io.EOF}) },
			"refused":   func() { observe(lease.Event{Type: lease.EventRefused, Key: "k"}) },
			"a life": func() {
				call++
				for _, key := range [...]string{"key", "election/e", "pool/p/1"} {
					observe(lease.Event{Type: lease.EventWaiting, Key: key, Call: call})
					observe(lease.Event{Type: lease.EventAcquired, Key: key, Call: call, Session: "s", TakenOver: true})
					observe(lease.Event{Type: "handler failed", Key: key, Err: io.EOF})
					observe(lease.Event{Type: lease.EventReleased, Key: key, Session: "s"})
				}
				observe(lease.Event{Type: lease.EventGaveUp, Key: "key", Err: io.EOF})
				observe(lease.Event{Type: lease.EventLost, Key: "key", Reason: lease.ReasonMaxHold})
				observe(lease.Event{Type: lease.EventSessionKilled, Dropped: 1})
			},
			"a request":        func() { _ = hook(ctx, kv.Call{Op: "AtomicPut", Key: "k"}, next) },
			"a failed request": func() { _ = hook(ctx, kv.Call{Op: "AtomicPut", Key: "k"}, fail) },
		} {
			for range 100 { // until each series is there
				do()
			}
			require.Zero(t, testing.AllocsPerRun(1_000, do), "%s: %s", name, what)
		}
	}
}

func TestItIsSafeForConcurrentUse(t *testing.T) {
	t.Parallel()
	m := newMetrics(t, metrics.WithKeyLabel(func(key string) string { return key }))
	const clients, rounds = 8, 200
	var wait sync.WaitGroup
	for n := range clients {
		observe := m.Observer()
		wait.Go(func() {
			for round := range rounds {
				key := fmt.Sprint("election/", n, "-", round%10)
				observe(lease.Event{Type: lease.EventSessionOpened, Session: key, TTL: time.Minute, Time: time.Now()})
				observe(lease.Event{Type: lease.EventWaiting, Key: key, Call: uint64(round)})
				observe(lease.Event{Type: lease.EventAcquired, Key: key, Call: uint64(round), Session: key})
				observe(lease.Event{Type: lease.EventReleased, Key: key, Session: key})
				_ = m.Hook(t.Context(), kv.Call{Op: fmt.Sprint("Op", round%10)}, func(context.Context) error { return nil })
			}
		})
	}
	for range 5 {
		_ = values(t, m) // buckets and counts agree at any moment
	}
	wait.Wait()
	acquired, waiting, held := 0.0, 0.0, 0.0
	for series, value := range values(t, m) {
		switch metric, _, _ := strings.Cut(series, "{"); metric {
		case "dynalock_acquire_duration_seconds_count":
			acquired += value
		case "dynalock_acquires_waiting":
			waiting += value
		case "dynalock_leases_held":
			held += value
		}
	}
	require.Equal(t, []float64{clients * rounds, 0, 0}, []float64{acquired, waiting, held})
}

func TestTheHandlerServesTheText(t *testing.T) {
	t.Parallel()
	m := newMetrics(t)
	m.Observer()(lease.Event{Type: lease.EventRefused, Key: "k"})
	server := httptest.NewServer(m)
	defer server.Close()
	response, err := http.Get(server.URL)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, "text/plain; version=0.0.4; charset=utf-8", response.Header.Get("Content-Type"))
	require.Equal(t, text(t, m), string(body))
	refused, err := http.Post(server.URL, "text/plain", nil)
	require.NoError(t, err)
	defer refused.Body.Close()
	require.Equal(t, http.StatusMethodNotAllowed, refused.StatusCode)
	require.Equal(t, "GET, HEAD", refused.Header.Get("Allow"))
}

func TestWritePrometheusReturnsTheWritersError(t *testing.T) {
	t.Parallel()
	require.ErrorIs(t, newMetrics(t).WritePrometheus(failing{}), io.ErrShortWrite)
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestNewRefusesWhatIsNoOption(t *testing.T) {
	t.Parallel()
	_, err := metrics.New(nil)
	require.ErrorIs(t, err, lease.ErrInvalid)
	require.ErrorContains(t, err, "option 0 of New is nil: want an Option")
	_, err = metrics.New(metrics.WithKeyLabel(nil))
	require.ErrorIs(t, err, lease.ErrInvalid)
	require.ErrorContains(t, err, "WithKeyLabel(nil): want a function")
}

// The package's documentation names what is exported, with its type and labels.
func TestTheDocumentationListsTheInstruments(t *testing.T) {
	t.Parallel()
	documented := documentedMetrics(t)
	var want []string
	for _, i := range meter.All {
		kind := map[meter.Kind]string{
			meter.Counter: "counter", meter.UpDownCounter: "gauge", meter.Gauge: "gauge", meter.Histogram: "histogram",
		}[i.Kind]
		want = append(want, strings.TrimSpace(i.PrometheusName()+" "+kind+" "+strings.Join(i.Attributes, ", ")))
	}
	require.Equal(t, want, documented)
}
