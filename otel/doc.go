// Package otel measures what leases, elections, pools and the store do with
// OpenTelemetry, and makes spans of acquires and releases. It uses
// OpenTelemetry's API and leaves the choice of an SDK to the program.
//
//	i, err := otel.New() // of this package
//	...
//	defer i.Close()
//	store = kv.Instrument(store, i.Hook)
//	client, err := lease.New(store, lease.WithObserver(i.Observer()), lease.WithTracer(i.Trace))
//
// The instruments have the names dynalock.acquire.duration,
// dynalock.hold.duration and so on. Through OpenTelemetry's exporter for
// Prometheus they come out under the names that package metrics documents, with
// the same attributes and the same meaning.
//
// Keys are no attributes of metrics, except through WithKeyLabel. Spans have
// them. Each acquire and each release of the client makes one, those of mutexes,
// elections, pools and the other recipes too:
//
//	dynalock.acquire   dynalock.key, dynalock.outcome; once acquired
//	                   dynalock.token, dynalock.taken_over
//	dynalock.release   dynalock.key, dynalock.token, dynalock.outcome: released,
//	                   lost, error
package otel
