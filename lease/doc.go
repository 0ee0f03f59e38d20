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
//
//	          Acquire                         Release
//	free ───────────────▶ held by session S ──────────▶ free
//	                            │
//	                            │ S not seen to beat for ttl + ttl/16, then killed by a contender
//	                            ▼
//	                      S is dead ───────────▶ held by session T, with a greater token
//
// # Why it is safe
//
// No clock is compared with another machine's. The holder believes in its session for its TTL less a margin, counted from before the
// last acknowledged heartbeat was sent (R3) by whichever of its clocks counted most (R4): the wall clock and Linux's boot clock go on while
// a virtual machine is frozen, the monotonic clock does not jump. A contender waits for the TTL and a sixteenth, counted by its
// monotonic clock from the receipt of a read that showed the latest heartbeat (R10). So the holder has stopped believing before
// the contender acts, as long as the rates of the two clocks differ by less than 3 %.
//
// The contender then deletes the session's row, on the version that it observed. A heartbeat that came meanwhile makes that fail; one that
// comes later fails itself, for ever. Only a row that is proven to name a dead session is taken over, by a conditional
// write, so that exactly one contender wins; the row's new version is the fencing token, greater than all before.
//
// A write whose answer was lost is never taken for failed: the driver recognizes its own write; if it cannot tell, the client looks after
// the row until it knows (R14), and gives it back if nobody wants it any more.
//
// # What happens when
//
//	the holder crashes          a contender gets the key within (ttl + ttl/16 + ttl/3) and a poll
//	the holder is paused        Held is false when it wakes, computed from the clocks; its context ends; older tokens are refused by the resource
//	the store is out of reach   the lease ends at the trust deadline, whether or not any request returns
//	an answer is lost           nothing: the next attempt or heartbeat finds the write and goes on
//	a clock steps               forward: leases of that process end early; backward: nothing
//	the session row is edited   the session ends at the next heartbeat; its leases are lost
//
// # What you must do
//
// Stop working when the lease's context ends; Release after you have stopped, not before. Pass [Lease.Token] to the resource and let
// it refuse smaller ones: a check followed by an act cannot be made safe by any lock, since a process can be paused between the two.
package lease
