// Package lease gives the keys of a [kv.Store] to one process at a time, with a fencing token, and passes them on
// when their holder dies.
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
// A [Client] owns one session: a row that it heartbeats, whatever it holds. A lease is a row that names a session.
// Holding ten thousand leases costs the same one write per heartbeat as holding one, and deleting the session frees them all.
// What the store says of a key:
//
//	          Acquire                         Release, Close
//	free ───────────────▶ held by session S ────────────────▶ free
//	                            │
//	                            │ S not seen to beat for ttl + ttl/16, then killed by a contender
//	                            ▼
//	                      S is dead ───────────▶ held by session T, with a greater token
//
// What a holder says of its lease, for ever once it has left the first state (R5):
//
//	held ──┬── Release ───────────────────────────────────────▶ released   (Err matches ErrNotHeld)
//	       └── trust deadline, kill, Break, max-hold, Close ──▶ lost       (Err matches ErrLost, Reason says why)
//
// A [Pool] shares a set of keys among its members by the same leases.
//
// # Why it is safe
//
// docs/design.md has the rules, R1 to R19, in full; they rest on what package kv promises of every store, S1 to S6. The argument has
// four steps.
//
// The holder stops first. It believes in its session for its TTL less a margin ([WithMargin]: a tenth, at least 500 ms), counted from before the last
// acknowledged heartbeat was sent (R3) by whichever of its clocks counted most (R4): the wall clock and Linux's boot clock go
// on while a virtual machine is frozen, the monotonic clock does not jump. That is computed whenever it is asked (R5), and at the deadline
// every context ends, whatever the network does (R6). A contender waits for the TTL and a sixteenth, as the row has them, counted
// by its monotonic clock from the receipt of a read that showed the latest heartbeat (R10). No clock is compared with another machine's; only
// the clocks' rates must agree, to within 3 %.
//
// Nobody takes on suspicion. The contender deletes the session's row, on the version that it observed (R10). A heartbeat that came meanwhile
// makes that fail; one that comes later fails itself, for ever, since versions only grow (S3) and a session's id is never used again (R1,
// R8). Only a row that is proven to name a dead session is taken over, by a conditional write, so that exactly one contender wins; the
// row's new version is the fencing token, greater than all before.
//
// No answer is guessed. A write whose answer was lost is never taken for failed: the driver recognizes its own write (S5); if it cannot
// tell, a heartbeat is found again by its random beat (R2), and a lease by its random acquisition id: the client looks after the row until
// it knows (R14), and gives it back if nobody wants it any more. What was acquired while trust ran out is not granted (R9.4).
//
// Giving back is the holder's. Release ends the lease before it writes (R13); Close ends all, waits for their holders, and then deletes
// the session (R16); Break asks the holder, and waits for its confirmation or for the end of its trust (R17). A row that is not understood
// is never taken for dead (R18).
//
// # What happens when
//
//	the holder crashes                   a waiter gets the key within (ttl + ttl/16 + ttl/3) and a poll; of a thousand leases, all together
//	the holder is paused, then goes on   for less than its trust: nothing. For longer: Held is false when it wakes, computed from the
//	  (frozen monotonic clock or not)      clocks, and its context ends; older tokens are refused by the resource
//	the store is out of reach            for less than is left to the trust deadline: nothing. For longer: the lease ends at the deadline,
//	                                       whether or not any request returns; later acquires open a new session
//	the store throttles                  nothing, as long as a heartbeat gets through before the deadline
//	answers are slow                     up to the attempt timeout, 1 s or a sixth of the TTL: nothing. Beyond it they count as lost
//	an answer is lost                    nothing: the next attempt or heartbeat finds the write and goes on
//	the wall clock steps                 forward: leases of that process may end early; backward, or a contender's: nothing
//	the session's row is edited          the session ends at the next heartbeat; its leases are lost
//	a row is of another format           [ErrFormat]; it is left alone
//
// failures_test.go has a test of each of the first seven, over the DynamoDB driver.
//
// # What you must do
//
// Stop when the lease's context ends. Its holder then has the margin until somebody else may act: work that takes longer to stop needs a
// longer one ([WithMargin]), or asks [WithMinRemaining] or [Lease.Remaining] before a step that cannot be interrupted.
//
// Release after you have stopped, not before: others have the key from then on.
//
// Pass [Lease.Token] to the resource and let it refuse smaller ones, or put [Lease.Condition] into the DynamoDB transaction that writes: a
// check followed by an act cannot be made safe by any lock, since a process can be paused between the two.
//
// Use one client per process and [Client.Close] it. Make it when the process runs, not in an image that is copied while it does.
//
// # What it does not give
//
// Exclusion for a resource that ignores tokens, where a pause has no bound; or where a machine is suspended and its wall clock set back by
// as much; or between clones of a virtual machine that share a live session, until the next heartbeat tells them apart.
//
// Exclusion between Regions of an eventually consistent global table. Tokens that grow across the restore of a backup, or a switch to
// another Region. Fairness between processes: goroutines of one client get a key in the order in which they came, clients do not.
package lease
