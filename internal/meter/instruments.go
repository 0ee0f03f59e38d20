// Package meter turns events of leases, requests to a store and listings of
// pools into measurements. Packages metrics and otel hand them on, each in its
// own way, so that both count the same.
package meter

import "strings"

// Kind is what an instrument measures.
type Kind int

// The kinds of instruments.
const (
	// Counter only grows.
	Counter Kind = iota
	// UpDownCounter is the sum of what was added and taken away.
	UpDownCounter
	// Gauge is asked for when somebody looks.
	Gauge
	// Histogram counts durations, in seconds, by bounds.
	Histogram
)

// Instrument is one metric.
type Instrument struct {
	// Name is OpenTelemetry's.
	Name string
	Kind Kind
	// Unit is "s" for seconds, or a word in braces, which no name carries.
	Unit string
	Help string
	// Attributes are the names of Labels.First and Labels.Second, if there are any.
	Attributes []string
	// Keyed: it has the attribute key too, where keys are labelled.
	Keyed bool
	// Bounds are those of a histogram, in seconds.
	Bounds []float64
}

// Labels are the values of an instrument's attributes.
type Labels struct {
	First, Second string
	// Key is the label of the lease's key, "" where keys are not labelled.
	Key string
}

// KeyAttribute is the name of Labels.Key.
const KeyAttribute = "key"

var (
	waits    = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	holds    = []float64{.01, .1, 1, 10, 60, 600, 3600, 21600, 86400}
	requests = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
)

// The instruments.
var (
	AcquireDuration = &Instrument{
		Name: "dynalock.acquire.duration", Kind: Histogram, Unit: "s", Bounds: waits,
		Help:       "How long calls of Acquire and TryAcquire took.",
		Attributes: []string{"outcome"}, Keyed: true,
	}
	HoldDuration = &Instrument{
		Name: "dynalock.hold.duration", Kind: Histogram, Unit: "s", Bounds: holds,
		Help:       "How long leases were held that have ended.",
		Attributes: []string{"reason"}, Keyed: true,
	}
	LeasesHeld = &Instrument{
		Name: "dynalock.leases.held", Kind: UpDownCounter, Unit: "{lease}",
		Help: "Leases that this process holds.", Keyed: true,
	}
	AcquiresWaiting = &Instrument{
		Name: "dynalock.acquires.waiting", Kind: UpDownCounter, Unit: "{acquire}",
		Help: "Acquires of this process that wait for a key.", Keyed: true,
	}
	LeasesLost = &Instrument{
		Name: "dynalock.leases.lost", Kind: Counter, Unit: "{lease}",
		Help:       "Leases that ended before they were released.",
		Attributes: []string{"reason"}, Keyed: true,
	}
	Takeovers = &Instrument{
		Name: "dynalock.takeovers", Kind: Counter, Unit: "{lease}",
		Help: "Leases that were taken over from a session that had died.", Keyed: true,
	}
	SessionsOpened = &Instrument{
		Name: "dynalock.sessions.opened", Kind: Counter, Unit: "{session}",
		Help: "Sessions that this process has opened.",
	}
	SessionsLost = &Instrument{
		Name: "dynalock.sessions.lost", Kind: Counter, Unit: "{session}",
		Help: "Sessions that this process has lost, with every lease under them.", Attributes: []string{"reason"},
	}
	SessionsOverdue = &Instrument{
		Name: "dynalock.sessions.overdue", Kind: Counter, Unit: "{session}",
		Help: "Silences of other processes' sessions that this one has seen last for two thirds of their TTL.",
	}
	SessionsKilled = &Instrument{
		Name: "dynalock.sessions.killed", Kind: Counter, Unit: "{session}",
		Help: "Dead sessions of other processes that this one has ended.",
	}
	SessionTrust = &Instrument{
		Name: "dynalock.session.trust", Kind: Gauge, Unit: "s",
		Help: "How long the session is trusted without a further heartbeat. Of several, that closest to its end.",
	}
	SessionTTL = &Instrument{
		Name: "dynalock.session.ttl", Kind: Gauge, Unit: "s",
		Help: "The TTL of that session.",
	}
	HeartbeatDuration = &Instrument{
		Name: "dynalock.heartbeat.duration", Kind: Histogram, Unit: "s", Bounds: requests,
		Help: "How long the store took to acknowledge heartbeats.",
	}
	HeartbeatFailures = &Instrument{
		Name: "dynalock.heartbeat.failures", Kind: Counter, Unit: "{heartbeat}",
		Help: "Heartbeats that were not acknowledged.",
	}
	ElectionLeader = &Instrument{
		Name: "dynalock.election.leader", Kind: Gauge, Unit: "{leader}",
		Help: "1 if this process leads, 0 if it has campaigned and does not.", Attributes: []string{"election"},
	}
	ElectionTransitions = &Instrument{
		Name: "dynalock.election.transitions", Kind: Counter, Unit: "{transition}",
		Help: "How often this process has begun to lead.", Attributes: []string{"election"},
	}
	PoolPartitions = &Instrument{
		Name: "dynalock.pool.partitions", Kind: Gauge, Unit: "{partition}",
		Help:       "Partitions: held by this process, and, as of the last listing, those that nobody works on.",
		Attributes: []string{"pool", "state"},
	}
	HandlerFailures = &Instrument{
		Name: "dynalock.pool.handler.failures", Kind: Counter, Unit: "{failure}",
		Help:       "Handlers of this process that failed, or were found stuck.",
		Attributes: []string{"pool", "state"},
	}
	CheckpointAge = &Instrument{
		Name: "dynalock.pool.checkpoint.age", Kind: Gauge, Unit: "s",
		Help:       "How long listings have shown the same checkpoint of a held partition: the longest.",
		Attributes: []string{"pool"},
	}
	RequestDuration = &Instrument{
		Name: "dynalock.store.request.duration", Kind: Histogram, Unit: "s", Bounds: requests,
		Help:       "How long operations on the store took, with all attempts of its driver.",
		Attributes: []string{"operation", "outcome"},
	}
	EventsDropped = &Instrument{
		Name: "dynalock.events.dropped", Kind: Counter, Unit: "{event}",
		Help: "Events that were not counted, because an observer was too slow.",
	}
)

// All are the instruments, in the order in which they are shown.
var All = []*Instrument{
	AcquireDuration, HoldDuration, LeasesHeld, AcquiresWaiting, LeasesLost, Takeovers,
	SessionsOpened, SessionsLost, SessionsOverdue, SessionsKilled, SessionTrust, SessionTTL,
	HeartbeatDuration, HeartbeatFailures,
	ElectionLeader, ElectionTransitions, PoolPartitions, HandlerFailures, CheckpointAge,
	RequestDuration, EventsDropped,
}

// PrometheusName is the name that OpenTelemetry's translation gives the metric.
func (i *Instrument) PrometheusName() string {
	name := strings.ReplaceAll(i.Name, ".", "_")
	if i.Unit == "s" {
		name += "_seconds"
	}
	if i.Kind == Counter {
		name += "_total"
	}
	return name
}
