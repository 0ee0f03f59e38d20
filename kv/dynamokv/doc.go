// Package dynamokv keeps the contract of package kv in one table of AWS DynamoDB.
//
// A [Store] is one value of the table's partition key; the keys of its pairs are values of the sort key. So
// List is an ordered, strongly consistent query, and one table serves many stores. [EnsureTable] makes the table.
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
//	payload   S/B  the value: S if it was given as text, so that it can be read in the console
//	writer    S    128 random bits, the same for all attempts of one operation
//	deadline  N    when the pair expires, Unix ms; absent: never
//	expires   N    when DynamoDB may sweep the row, Unix seconds: garbage collection, never logic
//	deleted   BOOL present (and true) in a tombstone
//
// Any other attribute is one of the pair's fields. Deleting leaves a tombstone for the retention (see
// [WithRetention], which can also do without), which is what makes versions grow across it. A row is dead if it is a tombstone or past its deadline.
//
// # How writes stay safe
//
// The driver makes its own attempts; the SDK's are off. Each is bounded by a second ([kv.WithAttemptTimeout]
// lowers that), attempts are apart by a jittered backoff from 25 ms to 1 s, and all of them together by ctx or, if that has no
// deadline, 10 s; never by more than a minute (S6). Every attempt of an operation says the same: version,
// write id and the :now of its conditions are fixed when it begins. A condition that fails and returns our own
// write id was ours (S5); after a lost answer, one that does not prove that ours can no longer land is an ErrUncertain.
//
// A create that fails on a dead row is tried anew above that row's version, as
// an operation with another write id, within the same time. So is a Put whose
// row changed between a look at it and the write.
//
// # What is assumed of clocks
//
// A create takes its version from the wall clock, in microseconds, so clocks of machines that share a table must
// agree to within the retention. A clock more than about 15 minutes off is refused by DynamoDB, as [kv.ErrClock]: the
// driver disables the SDK's silent correction of it. Expiry compares wall clocks; package lease does not use it.
//
// Global tables must be strongly consistent across Regions; EnsureTable refuses the others.
package dynamokv
