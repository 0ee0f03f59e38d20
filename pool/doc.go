// Package pool shares a set of partitions among the processes that are there:
// shards, tenants, queues, jobs. One member at a time works on a partition,
// under a lease with a fencing token, and its checkpoint passes on.
//
//	p, err := pool.New(client, "mail", func(ctx context.Context, w *pool.Work) error {
//		for batch := range batches(ctx, w.Name(), w.Checkpoint()) {
//			if err := send(ctx, batch, w.Token()); err != nil {
//				return err // called again after a pause
//			}
//			if err := w.Save(ctx, batch.End()); err != nil {
//				return err
//			}
//			select {
//			case <-w.Draining():
//				return nil // it moves: another goes on from the checkpoint
//			default:
//			}
//		}
//		return pool.ErrDone
//	})
//	...
//	err = p.Add(ctx, "shard-0", "shard-1", "shard-2")
//	...
//	err = p.Run(ctx)
//
// # How it works
//
// A partition is a key of package lease that keeps its value. The value is the
// checkpoint, which only the partition's holder writes. What an operator says of
// a partition (paused, about to be removed, its weight) is the key's note, which
// anybody may write at any time. An acquire names the note that it has seen, so
// nobody begins to work on a partition after Pause has returned.
//
// Every member lists the sessions and the partitions now and then, and computes
// by the same pure function who should have what. The plan is sticky: it moves
// as few partitions as can be. No member waits for another's consent. Where two
// have different views, both try, and a conditional write lets one of them win.
package pool
