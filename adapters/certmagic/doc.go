// Package certmagicstorage is a storage of certmagic
// (github.com/caddyserver/certmagic) on a kv.Store, with locks on leases. A fleet
// that shares it obtains each certificate once. When a process dies in the middle,
// another goes on.
//
//	storage, err := certmagicstorage.New(store, client)
//	...
//	certmagic.Default.Storage = storage
//	err = certmagic.HTTPS([]string{"example.com"}, handler)
//
// # What it keeps to
//
// Load returns what the last Store wrote. Store and Delete are conditional writes,
// so none of them lands late, over what is newer. A value and its key are at most
// kv.MaxPairSize bytes together, less a few for the time of its writing: far more
// than a certificate chain has.
//
// A lock is a lease, with a session that is kept alive for as long as the process
// lives. certmagic has no way to be told of a lost lock while it waits for a CA.
// It asks before each attempt, and attempts are bounded. So after an outage of the
// store two processes may, once, obtain the same certificate. Both are valid, and
// the store keeps the later one.
package certmagicstorage
