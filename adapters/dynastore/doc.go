// Package dynastore reads tables that github.com/wolfeidau/dynastore or dynalock
// before version 2 have written, and moves their pairs to this library.
//
//	old, err := dynastore.Open(db, "app", "settings") // table, partition
//	...
//	for row, err := range old.All(ctx, "") { ... }     // read in place
//	n, err := old.Import(ctx, store, dynastore.Base64) // copy to any kv.Store
//	err = old.TakeOver(ctx, row, dynastore.Base64)     // or make the row a pair
//
// Such a table has the shape of dynamokv's: the keys "id" and "name", and the time
// to live "expires". Its rows have not:
//
//	version   N  grows with each write, and begins at 1 again after a delete
//	payload   S  the value, as text or in base64: the row does not say which
//	expires   N  when the row expires, Unix seconds
//
// A dynamokv.Store of the same partition calls such a row a kv.FormatError, so
// that it takes none of them for its own. Nothing here changes that: use another
// partition, or take over each row before the Store uses it.
//
// # While both write
//
// After TakeOver the old library may still read the row, and sees the value of
// text. It sees a deleted pair as an empty one, and an expired one as live, for the
// retention. It must not write the row any more: its writes keep the write id of
// the last one of dynamokv, which may then take them for its own. A write on a
// version that it read before TakeOver fails.
package dynastore
