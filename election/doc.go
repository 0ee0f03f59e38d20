// Package election elects one leader among the processes that campaign under a
// name. It stands on package lease.
//
//	e, err := election.New(client, "scheduler")
//	...
//	err = e.Run(ctx, func(ctx context.Context, t *election.Term) error {
//		return schedule(ctx, t.Token()) // ctx ends at the loss of the leadership
//	})
//
// A candidate is a process in [Election.Campaign] or [Election.Run]. An observer
// uses [Election.Leader] or [Election.Observe], and need not be a candidate. The
// leader holds the lease "election/<name>", so what package lease says of leases
// holds of leadership:
//
//   - it depends on one session per process;
//   - it ends at a trust deadline that the leader computes from its own clocks;
//   - it has a fencing token that grows from term to term.
//
// # What is promised
//
//   - There is at most one leader per token. No two processes believe at once
//     that they lead, while the rates of their clocks differ by less than 3 %.
//   - A campaign that returns an error leads nothing. It leaves no leadership
//     behind that nobody knows of.
//   - IsLeader is computed from the clocks at the call. It is never true past the
//     trust deadline, however late timers or answers are.
//   - Run gives the leadership up after fn has returned. It does not call fn
//     while an earlier call still runs.
//   - Observers see tokens never decrease, see vacancies, and never miss the
//     latest state.
//
// # When the next one leads
//
//	the leader resigns    Within one poll of the candidates (lease.WithPoll): a
//	                      tenth of the time waited, 50 ms to 1 s.
//	its client is closed  The same. A candidate that has just seen the session
//	                      alive needs up to a third of the TTL.
//	it crashes            Within ttl + ttl/16 + ttl/3 and a poll: about 1.4 TTL,
//	                      21 s at the default of 15 s.
//	it is cut off from    It steps down when its last heartbeat is the TTL less
//	the store             the margin old. The next one leads as after a crash.
//	it is paused          As after a crash. When it wakes, Held and IsLeader are
//	                      false.
//
// # Choosing TTL and poll
//
// The TTL (lease.WithTTL) is a trade. A short one makes failover after a crash
// quick. A long one survives long outages of the store and long pauses of the
// process, and costs fewer heartbeats: one write every TTL/3 per process.
//
// Take the failover time that you need and divide it by 1.4. No pause (garbage
// collection, CPU quota, disk) and no outage that the leader should survive may
// be longer than half of that. 10 to 30 s suit most services. 3 s is the least.
// A clean resignation does not depend on the TTL, so deployments need no short
// one.
//
// The poll (lease.WithPoll) is the longest vacancy after a clean resignation. It
// costs each candidate a read. A second is right for most: three candidates make
// two reads a second. WithPoll of this package is that of Observe.
//
// # Deployments
//
// Turn SIGTERM into the end of Run's context. Let Run and then lease.Client.Close
// return before the process exits:
//
//	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
//	defer stop()
//	err := e.Run(ctx, lead) // resigns when lead has returned
//	...
//	err = client.Close(context.WithoutCancel(ctx))
//
// Kubernetes sends SIGTERM, and kills after terminationGracePeriodSeconds, 30 by
// default. That must cover what fn needs to stop. With a silent store it must
// also cover twice the TTL/3 (2 to 10 s) for which Resign and Close try. A
// preStop hook delays the SIGTERM, and so the resignation: use none, or a short
// one.
//
// Use [Election.Health] as the liveness probe. Its failureThreshold and period
// should be longer than a hiccup. With "?leader" it is a readiness probe for a
// Service that should reach only the leader. Then a rolling update must not wait
// until the others are ready (maxUnavailable at least 1, or the StatefulSet's
// OnDelete).
//
// ECS sends SIGTERM, and kills after stopTimeout: 30 s by default, at most 120 s
// on Fargate. The same sum applies. Make the program the container's PID 1, or set
// initProcessEnabled. A shell as PID 1 does not pass SIGTERM on, and then each
// deployment is a crash with a failover of 1.4 TTL. The load balancer's health
// check can use "?leader", the container's own should not.
//
// A process that was frozen and thawed (Lambda, a suspended machine) finds its
// leadership gone, by its wall clock.
//
// # What a deposed leader may still do
//
// Between a check of Held, or of a context, and the act that follows, a process
// may be paused for any time. It then acts as leader while another leads, once.
// A request that it sent before may arrive late, too. No election can prevent
// that. Only what is acted upon can:
//
//   - Give [Term.Token] with each request. Let the resource refuse a token that
//     is smaller than the greatest it has seen.
//   - Where the resource is the same DynamoDB table, put [Term.Condition] into the
//     transaction.
//   - What cannot check tokens should at least be idempotent.
package election
