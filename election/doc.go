// Package election elects one leader among the processes that campaign under a name, on package lease.
//
//	e, err := election.New(client, "scheduler")
//	...
//	err = e.Run(ctx, func(ctx context.Context, t *election.Term) error {
//		return schedule(ctx, t.Token()) // ctx ends at the loss of the leadership
//	})
//
// A candidate is a process in [Election.Campaign] or [Election.Run]; an observer uses [Election.Leader] or [Election.Observe], and need
// not be a candidate. The leader holds the lease "election/<name>", so all that package lease says of leases holds of leadership: it
// depends on one session per process, ends at a trust deadline that the leader computes from its own clocks, and carries
// a fencing token that grows from term to term.
//
// # What is promised
//
//   - At most one leader per token, and no two processes believe at once that they lead, while the rates of their clocks differ by less than 3 %.
//   - A campaign that returns an error leads nothing: no leadership is left behind that nobody knows of.
//   - IsLeader is computed from the clocks at the call: never true past the trust deadline, however late timers or answers are.
//   - Run gives the leadership up after fn has returned, not before, and does not call fn while an earlier call still runs.
//   - Observers see tokens never decrease, see vacancies, and never miss the latest state.
//
// # When the next one leads
//
//	the leader resigns           within one poll of the candidates (lease.WithPoll: a tenth of the time waited, 50 ms to 1 s)
//	its client is closed         the same, but for a candidate that has just seen the session alive: up to a third of the TTL
//	it crashes                   within ttl + ttl/16 + ttl/3 and a poll: about 1.4 TTL, 21 s at the default of 15 s
//	it is cut off from the store it steps down at TTL less the margin since its last heartbeat; the next one leads as after a crash
//	it is paused                 as after a crash; when it wakes, Held and IsLeader are false
//
// # Choosing TTL and poll
//
// The TTL (lease.WithTTL) is a trade: a short one makes failover after a crash quick, a long one survives long outages of the store and
// long pauses of the process, and costs fewer heartbeats, one write every TTL/3 per process. Take the failover time that you need, divide it by 1.4, and
// see that no pause (garbage collection, CPU quota, disk) and no outage that the leader should survive is longer than half of
// it. 10 to 30 s suit most services; 3 s is the least. A clean resignation does not depend on the TTL, so deployments need no short one.
//
// The poll (lease.WithPoll) is what a vacancy after a clean resignation lasts at most, and costs one read each per candidate. A second is
// right for most: three candidates make two reads a second. WithPoll of this package is that of Observe.
//
// # Deployments
//
// Turn SIGTERM into the end of Run's context, and let Run and then lease.Client.Close return before the process exits:
//
//	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
//	defer stop()
//	err := e.Run(ctx, lead) // resigns when lead has returned
//	...
//	err = client.Close(context.WithoutCancel(ctx))
//
// Kubernetes sends SIGTERM and kills after terminationGracePeriodSeconds, 30 by default: that must cover what fn needs to stop and, with a
// silent store, twice the TTL/3 (2 to 10 s) that Resign and Close try for. A preStop hook delays the SIGTERM, and so the
// resignation, by as long as it takes: use none, or a short one. Use [Election.Health] as the liveness probe, with a failureThreshold and
// period that are longer than a hiccup; with "?leader" it is a readiness probe for a Service that should reach only the leader, but then a rolling update
// must not wait for readiness of the others (maxUnavailable at least 1, or the StatefulSet's OnDelete).
//
// ECS sends SIGTERM and kills after stopTimeout, 30 s by default, at most 120 s on Fargate; the same sum applies. Make the
// program the container's PID 1, or set initProcessEnabled: a shell as PID 1 does not pass SIGTERM on, and every deployment is then a crash with
// a failover of 1.4 TTL. The load balancer's health check can use "?leader", the container's own should not.
//
// A process frozen and thawed (Lambda, a suspended machine) finds its leadership gone, by its wall clock.
//
// # What a deposed leader may still do
//
// Between a check of Held, or of a context, and the act that follows, a process may be paused for any time. It then acts as leader
// while another leads, once; and a request that it sent before may arrive late. No election can prevent that: only what is acted upon can. Give
// [Term.Token] with each request and let the resource refuse one that is smaller than the greatest it has seen; where the resource is
// the same DynamoDB table, put [Term.Condition] into the transaction. What cannot check tokens should at least be idempotent.
package election
