// Package dynamokv keeps the contract of package kv in one table of AWS DynamoDB.
//
// A [Store] is one value of the table's partition key. The keys of its pairs are values of
// the sort key. So List is an ordered, strongly consistent query, and one table serves many
// stores. [EnsureTable] makes the table.
//
//	client := dynamodb.NewFromConfig(cfg)
//	if err := dynamokv.EnsureTable(ctx, client, "locks"); err != nil { ... }
//	store, err := dynamokv.New(client, "locks")
//
// # The row
//
//	id        S    the Store's partition
//	name      S    the pair's key
//	version   N    only ever grows; conditional writes set it to an absolute number
//	payload   S/B  the value: S if it was given as text, readable in the console
//	writer    S    128 random bits, the same for all attempts of one operation
//	deadline  N    when the pair expires, Unix ms; absent: never
//	expires   N    when DynamoDB may sweep the row, Unix seconds. Garbage
//	               collection, never logic
//	deleted   BOOL present (and true) in a tombstone
//
// [WithShards] spreads the pairs over several values of the partition key. The row U+0000
// "layout" of the partition says over how many ("shards", N). It is a tombstone that is
// never swept.
//
// Any other attribute is one of the pair's fields. A row is dead if it is a tombstone or
// past its deadline. Deleting leaves a tombstone for the retention, so that versions grow
// across it. [WithRetention] can do without.
//
// # How writes stay safe
//
// The driver makes its own attempts. The SDK's are off.
//
//   - An attempt is bounded by a second, or what [kv.WithAttemptTimeout] says if that is
//     less. Between attempts there is a jittered backoff from 25 ms to 1 s. All of them end
//     with ctx, or after 10 s if that has no deadline. None is sent after a minute (S6).
//   - While a shard throttles, a Store sends no more to it than it serves, or ten requests
//     a second if that is more, the latest first, and AtomicDelete before all others. An
//     operation whose turn does not come in time is a [kv.ErrThrottled]. [kv.Urgent] writes
//     wait for no turn, and are tried again after a tenth of a second at most.
//   - Every attempt of an operation says the same. Version, write id and the :now of its
//     conditions are fixed when it begins.
//   - A failed condition that returns our own write id was met by our own write (S5). After a
//     lost answer, one that does not prove that ours can no longer land is an ErrUncertain.
//   - A create that fails on a dead row is tried anew above that row's version, as an
//     operation with another write id, within the same time. So is a Put whose row changed
//     between a look at it and the write.
//
// # What is assumed of clocks
//
// A create takes its version from the wall clock, in microseconds. So clocks of machines
// that share a table must agree to within the retention. DynamoDB refuses a clock that is
// more than about 15 minutes off, as [kv.ErrClock]. The driver disables the SDK's silent
// correction of it. Expiry compares wall clocks. Package lease does not use it.
//
// Global tables must be strongly consistent across Regions. EnsureTable refuses others.
package dynamokv
