// Package lease gives the keys of a [kv.Store] to one process at a time, with
// a fencing token. When a holder dies, its keys pass on.
//
//	client, err := lease.New(store)
//	...
//	l, err := client.Acquire(ctx, "nightly-report")
//	if err != nil {
//		return err
//	}
//	defer l.Release(ctx)
//	return report(l.Context(), l.Token()) // the context ends if the lease is lost
//
// # How it works
//
// A [Client] owns one session: a row that it heartbeats, whatever it holds.
// A lease is a row that names a session. Ten thousand leases cost the same one
// write per heartbeat as one lease does. Deleting the session frees them all.
//
// What the store says of a key:
//
//	          Acquire                         Release, Close
//	free ───────────────▶ held by session S ────────────────▶ free
//	                            │
//	                            │ S not seen to beat for ttl + ttl/16,
//	                            │ then killed by a contender
//	                            ▼
//	                      S is dead ──▶ held by session T, with a greater token
//
// What a lease says of itself. It never returns to the first state (R5):
//
//	held ──┬── Release ───────────────────────▶ released (Err matches ErrNotHeld)
//	       └── trust deadline, kill, Break,
//	           max-hold, Close ───────────────▶ lost     (Err matches ErrLost)
//
// Package pool shares a set of keys among its members by the same leases.
//
// # Why it is safe
//
// docs/design.md has the rules in full. They rest on what package kv
// promises of every store, S1 to S6. The argument has four steps.
//
// The holder stops first:
//
//   - It trusts its session for the TTL less a margin (see [WithMargin]). It
//     counts from before its last acknowledged heartbeat was sent (R3).
//   - It counts by whichever of its clocks counted most (R4). The wall clock and
//     Linux's boot clock go on while a virtual machine is frozen. The monotonic
//     clock does not jump.
//   - Trust is computed whenever somebody asks (R5). At the deadline every
//     context ends, whatever the network does (R6).
//   - A contender waits for the TTL in the row and a sixteenth. It counts by its
//     monotonic clock, from the receipt of a read that showed the latest
//     heartbeat (R10).
//
// So no clock is compared with another machine's. Only the rates of the clocks
// must agree, to within 3 %.
//
// Nobody takes on suspicion:
//
//   - A contender first deletes the session's row, on the version that it
//     observed (R10). A heartbeat that came meanwhile makes the delete fail.
//   - A heartbeat that comes later fails itself, for ever. Versions only grow
//     (S3), and a session's id is never used again (R1, R8).
//   - Only a row that names a session proven dead is taken over. The write is
//     conditional, so exactly one contender wins. The row's new version is the
//     fencing token, greater than all before.
//
// No answer is guessed:
//
//   - A write whose answer was lost is never taken for failed. The driver
//     recognizes its own write (S5).
//   - Where the driver cannot tell, a heartbeat is found again by its random
//     nonce (R2), a lease by its random acquisition id. The client looks after
//     the row until it knows, and gives back what nobody wants any more (R14).
//   - What was acquired while trust ran out is not granted (R9.4).
//
// Giving back is the holder's:
//
//   - Release ends the lease before it writes (R13).
//   - Close ends all leases, waits for their holders, then deletes the session
//     (R16).
//   - Break asks the holder. It waits for the confirmation, or for the end of
//     the holder's trust (R17).
//   - A row that is not understood is never taken for dead (R18).
//
// # What happens when
//
// Tests in dynamodb_faults_test.go run each line but the last two over the
// DynamoDB driver.
//
//	the holder crashes         A waiter gets the key within ttl + ttl/16 + ttl/3
//	                           and a poll. A thousand leases pass on together.
//	the holder is paused       Shorter than its trust: nothing. Longer: Held is
//	                           false when it wakes, and its context ends. The
//	                           resource refuses the older token.
//	the store is out of reach  Shorter than the trust that is left: nothing.
//	                           Longer: the lease ends at the deadline. Later
//	                           acquires open a new session.
//	the store throttles        Nothing, if one heartbeat gets through in time.
//	answers are slow           Up to the attempt timeout, the smaller of 1 s and
//	                           a sixth of the TTL: nothing. Then they are lost.
//	an answer is lost          Nothing: the next attempt or heartbeat finds the
//	                           write and goes on.
//	the wall clock steps       Forward: leases of that process may end early.
//	                           Backward, or a contender's: nothing.
//	the session row is edited  The session ends at the next heartbeat. Its leases
//	                           are lost.
//	a row is of another format [kv.ErrFormat]: it is left alone.
//
// The same with the options [WithMinHold] and [WithLockDelay], and with
// [Lease.Notify]:
//
//	the holder crashes         A min-hold ends with its session. A lock-delay is
//	                           waited for by each contender, from its own proof.
//	the holder is paused       Its channel from Notify is closed when it wakes, if
//	                           its trust is near its end or over.
//	Close                      It waits for a min-hold, as long as its context
//	                           allows. A lock-delay is waited for by nobody then.
//	Break                      A min-hold ends. A lock-delay is cut short.
//
// # What becomes of a value
//
// A lease's value stands in its row. [Lease.Update] changes it while the lease is
// held, [Client.Inspect] shows it. What becomes of it:
//
//	                   a key that keeps nothing   a key that keeps its value
//	WithValue          It is the lease's value.   Only if the key has none yet.
//	WithReplaceValue   It is the lease's value.   It replaces the kept one.
//	neither            There is none.             What the last holder left.
//	Release, Close,    The value goes with the    The last value that was written
//	a loss, a crash    row.                       stays for the next holder.
//	ReleaseWith        It is refused.             Its value stays.
//
// [KeepValue] and [WithRetention] make a key keep its value, from the first
// acquire that has them, for all that come later.
//
// # What you must do
//
// Stop when the lease's context ends. From then on you have the margin until
// somebody else may act. Work that takes longer to stop needs a longer margin
// ([WithMargin]). Before a step that cannot be interrupted, ask for enough time:
// [WithMinRemaining], [Lease.Remaining].
//
// Release after you have stopped. Others have the key from then on.
//
// Pass [Lease.Token] to the resource and let it refuse smaller ones. Or put
// [Lease.Condition] into the DynamoDB transaction that writes. A process can be
// paused between a check and an act, so no lock alone makes the pair safe.
//
// Use one client per process, and [Client.Close] it. Make it when the process
// runs, not in an image that is copied while it does.
//
// # What it does not give
//
//   - Exclusion for a resource that ignores tokens, where a pause has no bound.
//   - The same where a machine is suspended and its wall clock set back by as
//     much. The same between clones of a virtual machine that share a live
//     session, until the next heartbeat tells them apart.
//   - Exclusion between Regions of an eventually consistent global table.
//   - Tokens that grow across the restore of a backup, or a switch to another
//     Region.
//   - Order between processes within the first second, or in a queue of more
//     than 16. Goroutines of one client get a key in the order in which they came.
package lease
