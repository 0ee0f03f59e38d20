// Package metrics counts what leases, elections, pools and the store do, and
// shows it in the text format of Prometheus. It needs no client library.
//
//	m, err := metrics.New()
//	...
//	store = kv.Instrument(store, m.Hook)
//	client, err := lease.New(store, lease.WithObserver(m.Observer()))
//	...
//	http.Handle("/metrics", m)
//
// The names are those that OpenTelemetry's translation gives the instruments of
// the module otel, so one dashboard serves both:
//
//	dynalock_acquire_duration_seconds        histogram  outcome
//	dynalock_hold_duration_seconds           histogram  reason
//	dynalock_leases_held                     gauge
//	dynalock_acquires_waiting                gauge
//	dynalock_leases_lost_total               counter    reason
//	dynalock_takeovers_total                 counter
//	dynalock_sessions_opened_total           counter
//	dynalock_sessions_lost_total             counter    reason
//	dynalock_sessions_overdue_total          counter
//	dynalock_sessions_killed_total           counter
//	dynalock_session_trust_seconds           gauge
//	dynalock_session_ttl_seconds             gauge
//	dynalock_heartbeat_duration_seconds      histogram
//	dynalock_heartbeat_failures_total        counter
//	dynalock_election_leader                 gauge      election
//	dynalock_election_transitions_total      counter    election
//	dynalock_pool_partitions                 gauge      pool, state
//	dynalock_pool_handler_failures_total     counter    pool, state
//	dynalock_pool_checkpoint_age_seconds     gauge      pool
//	dynalock_store_request_duration_seconds  histogram  operation, outcome
//	dynalock_events_dropped_total            counter
//
// Values of the attributes:
//
//	outcome, of an acquire   acquired; refused: a try found the key held;
//	                         gave_up: the context ended or the client was closed;
//	                         error: anything else
//	outcome, of a request    ok, also of a key that is not there; conflict;
//	                         uncertain; throttled; refused: time does not mend it;
//	                         canceled: by the caller; unavailable: the rest
//	reason                   released, expired, killed, revoked, broken, max_hold,
//	                         closed: see lease.Reason
//	state, of a partition    held, by this process; and of the pool, as
//	                         CountPartitions has listed it, idle, paused, done,
//	                         failed, removed
//	state, of a failure      failed, stuck
//
// Keys are not shown, except through WithKeyLabel. Names of elections and pools
// are.
//
// Counting an event or a request takes no memory, once its series is there.
// Sessions' trust and leadership are computed when somebody looks. So a process
// that was frozen does not show what it believed before.
package metrics
