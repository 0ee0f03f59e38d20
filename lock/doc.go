// Package lock is mutual exclusion between processes, on package lease: [Mutex] for work that one process at a time may do, [Once] for
// work that is to be done once.
//
//	m := lock.NewMutex(client, "nightly-report")
//	err := m.Do(ctx, func(ctx context.Context, l *lease.Lease) error {
//		return report(ctx, l.Token()) // ctx ends if the lock is lost
//	})
//
//	hourly := lock.NewOnce(client, "invoices")
//	ran, err := hourly.Do(ctx, lock.Slot(scheduled, time.Hour), func(ctx context.Context, l *lease.Lease) error {
//		return send(ctx)
//	})
//
// # Which one
//
// A Mutex says who works now and forgets it on release: two cron jobs whose clocks differ by a second both get it, one after the other.
// Once says what has been done: the first to ask for a slot runs it, and who comes later, however much later, is told how it went.
//
// # What neither can do
//
// A lock that is held while its holder lives can still be lost: by a pause, a partition, an outage of the store that
// lasts longer than the TTL, an operator. Do tells the work by its context, computed from the holder's own clocks before anybody else is let in.
// Work that goes on all the same, or was paused between a look at the context and the act, only the resource can refuse: pass it
// [lease.Lease.Token] and let it refuse smaller ones, or put [lease.Lease.Condition] into the DynamoDB transaction that writes
// the data. The examples show both. See package lease for the whole argument.
//
// # What happens when
//
//	                       Mutex                                  Once, by default
//	the process dies       others get it after the holder's TTL   the slot is abandoned, or with TakeOver run again after the TTL
//	the lock is lost       fn's context ends; Do returns ErrLost  the same, and the outcome is not recorded: abandoned
//	fn returns an error    released, Do returns it                the slot has failed, or with RetryFailed runs when asked for next
//	fn panics              released, then the same panic          the slot has failed, then the same panic
//	an answer is lost      nothing                                nothing; one that records the outcome: Do says so, and goes on in the background
//	the store is away      Lock waits, TryLock and Do's start     nothing is started, and a claim under way is taken back when the
//	                       return its error                       store is there again; what runs is lost at the TTL
//	Close while fn runs    fn's context ends, Close waits for it  the same, and the outcome is recorded
//
// # Keys
//
// A Mutex is the lease of its name, and a slot that of Once.Key: [lease.Client.Inspect], Holders and Break work on them. Names
// that begin with "once/" are best left to Once, "pool/" and "election/" to their packages.
package lock
