// Package lock is mutual exclusion between processes, on package lease. [Mutex] is
// for work that one process at a time may do, [Multi] the same for several names at
// once, [Semaphore] for a number of holders at a time, [RWMutex] for many readers or
// one writer, [Once] for work that is to be done once.
//
//	m := lock.NewMutex(client, "nightly-report")
//	err := m.Do(ctx, func(ctx context.Context, l *lease.Lease) error {
//		return report(ctx, l.Token()) // ctx ends if the lock is lost
//	})
//
//	hourly := lock.NewOnce(client, "invoices")
//	slot := lock.Slot(scheduled, time.Hour)
//	ran, err := hourly.Do(ctx, slot, func(ctx context.Context, l *lease.Lease) error {
//		return send(ctx)
//	})
//
// # Which one
//
// A Mutex says who works now, and forgets it on release. Two cron jobs whose clocks
// differ by a second both get it, one after the other. Once says what has been done.
// The first to ask for a slot runs it. Who comes later, however much later, hears how
// it went.
//
// # What neither can do
//
// A lock can be lost while its holder lives: by a pause, a partition, an operator, or
// an outage of the store that lasts longer than the TTL. Do tells the work by ending
// its context. That comes from the holder's own clocks, before anybody else is let in.
//
// Some work goes on all the same, or was paused between a look at the context and the
// act. Only the resource can refuse that. Pass it [lease.Lease.Token] and let it
// refuse smaller ones, or put [lease.Lease.Condition] into the DynamoDB transaction
// that writes the data. The examples show both. Package lease has the whole argument.
//
// # What happens when
//
// With a Mutex:
//
//	the process dies      Others get it after the holder's TTL.
//	the lock is lost      fn's context ends. Do returns ErrLost.
//	fn returns an error   The lock is released. Do returns the error.
//	fn panics             The lock is released. Then the same panic goes on.
//	an answer is lost     Nothing.
//	fn is quick           The lock is free at once. With lease.WithMinHold it is
//	                      kept until its time is over, and Close waits for that.
//	another is at work    Lock and Do wait. TryLock and TryDo return ErrHeld.
//	the store is away     Lock waits. TryLock, TryDo and Do's start return its
//	                      error.
//	Close while fn runs   fn's context ends. Close waits for fn.
//
// With a Multi:
//
//	the process dies      Others get all names after the holder's TTL.
//	one name is lost      fn's context ends. Do returns ErrLost. The other names are
//	                      released when fn has returned.
//	one is lost while     Lock gives all back and begins again. TryLock and TryDo
//	others are waited for return ErrLost.
//	one name is held      Lock waits and keeps the names before it. TryLock gives
//	                      them back.
//	an answer is lost     Nothing.
//	the store is away     As with a Mutex. What was locked is lost at the TTL.
//
// With a Semaphore, as with a Mutex, and:
//
//	the process dies      All its permits come back together, after its TTL.
//	all permits are taken Acquire and Do wait. TryAcquire and TryDo return
//	                      ErrHeld with all Holders.
//	others name another   Every call returns an error that names both.
//	number
//	it is resized         Nobody is evicted. 15 s later no permit beyond the number
//	                      is taken any more.
//
// With an RWMutex, as with a Mutex for readers and writers, and:
//
//	a reader dies         Writers get the lock after its TTL. Other readers do not
//	                      notice.
//	a writer dies         Readers and writers get the lock after its TTL.
//	a writer waits        New readers wait too. Those that read go on.
//	writers never pause   Readers may wait for ever.
//	the row of a writer   Lock gives it back and begins again. TryLock returns
//	that waits is lost    ErrLost.
//	a reader asks for     It waits for itself, until its context ends.
//	Lock
//
// With Once, by default:
//
//	the process dies      The slot is abandoned. With TakeOver it runs again after
//	                      the TTL.
//	the lock is lost      fn's context ends. Do returns ErrLost. The outcome is not
//	                      recorded: the slot is abandoned.
//	fn returns an error   The slot has failed. With RetryFailed it runs when it is
//	                      asked for next.
//	fn panics             The slot has failed. Then the same panic goes on.
//	an answer is lost     Nothing. If it is the outcome's, Do may say so and go on
//	                      in the background.
//	the store is away     Nothing is started. A claim under way is taken back when
//	                      the store is there again. What runs is lost at the TTL.
//	Close while fn runs   fn's context ends. Close waits for fn, and the outcome is
//	                      recorded.
//
// [Once.Claim] and [OnceValue] are the same, and:
//
//	Finish never comes    The slot runs until the process dies or closes its client.
//	                      Then it is abandoned.
//	the value is too      Finish refuses it and the slot goes on. OnceValue's slot
//	large                 has failed, and its caller has the value.
//	the outcome is not    OnceValue returns the value that was computed, with the
//	recorded              error.
//
// # Keys
//
// A Mutex is the lease of its name, a Multi the leases of its names, a slot that
// of Once.Key. [lease.Client.Inspect], Holders and Break work on them. A
// permit's begins with "semaphore/" and the name, and so do the keys of readers and
// writers with "rw/". Mutex and Multi refuse names that begin with "once/",
// "semaphore/", "rw/", "pool/" or "election/", which are the keys of others.
package lock
