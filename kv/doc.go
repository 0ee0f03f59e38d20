// Package kv is a small key/value store API for state that several processes share.
//
// A [Store] holds pairs: a key, a value, a version and, if wanted, an expiry and named fields. Its
// conditional writes ([Store.AtomicPut], [Store.AtomicDelete]) compare versions, so a reader can
// change what it read and be told when somebody else was faster. That is all that the packages
// lease, lock and election are built on.
//
// The drivers keep the same contract and pass the same test suite (package kvtest):
//
//	kv/dynamokv   one table of AWS DynamoDB: for anything that runs in more than one place
//	kv/pgkv       one table of PostgreSQL: the same, where there is one
//	kv/sqlkv      one SQLite file: several processes on one machine, durable
//	kv/memkv      memory: one process, tests
//
// # What a store promises
//
// The letters are those that comments and tests of this package and its drivers quote.
//
//	S1  Reads are strongly consistent unless EventuallyConsistent is given.
//	S2  AtomicPut with a previous pair applies only if the live pair has exactly its version;
//	    without one, only if the key has no live pair, and only a live pair
//	    refuses it. AtomicDelete applies only at its version.
//	S3  Versions of a key only grow: across Delete, AtomicDelete, expiry and re-creation too.
//	    A conditional write, a create included, is applied at most once, however often and
//	    however late its attempts arrive. A blind Put or Delete is not: one that arrives late
//	    overwrites what is newer.
//	S4  Every write has one of three outcomes: applied (nil), not applied (*ConflictError,
//	    with the current pair, at no extra request), unknown (*UncertainError).
//	S5  A write that the driver tried again after a lost answer, and that had been applied, is
//	    a success.
//	S6  Nothing is sent after an operation returned, nor later than a minute after it began. A
//	    write whose outcome is unknown may still be applied until MaxWriteDelay after that.
//
// # Keys, values, fields
//
// A key is 1 to [MaxKeySize] bytes of UTF-8; keys are ordered by their bytes
// and "/" means nothing to a store. Key, value and fields of a pair together
// hold at most [MaxPairSize] bytes. An empty value is a value. The limits are
// DynamoDB's, they are checked before anything is sent, and they are the same
// on every driver, so that what works on a laptop works in production.
//
// # Expiry
//
// WithTTL sets an instant, in milliseconds of the writer's wall clock, from
// which every reader takes the pair for absent, swept or not. It is for data
// that goes stale. It is not for locks: it compares clocks of different
// machines. Package lease does not use it.
package kv
