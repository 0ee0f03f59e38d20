// Package lock is mutual exclusion between processes, on package lease.
//
//	m := lock.NewMutex(client, "nightly-report")
//	err := m.Do(ctx, func(ctx context.Context, l *lease.Lease) error {
//		return report(ctx, l.Token()) // ctx ends if the lock is lost
//	})
//
// A lock that is held while its holder lives can still be lost: by a pause, a partition, an outage of the store that
// lasts longer than the TTL. Do tells the work by its context. What a deposed holder may still do
// in that moment only the resource can refuse: pass it the token. See package lease for the whole argument.
package lock
