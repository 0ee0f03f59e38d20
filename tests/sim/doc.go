// Package sim runs the real lease layer and the real DynamoDB driver through seeded storms, and checks the protocol's invariants all the
// time. Everything is in its tests.
//
// One run is one testing/synctest bubble: a DynamoDB in memory, a few nodes around it, and time that jumps from event to event. Each
// node has a lease client, a driver, a network and a machine of its own. The network sits below the driver, so
// that its retries run: requests and answers are slow, are lost, land seconds after their caller has given up, or twice; the server throttles,
// fails, is out of reach; links are cut in one direction or both. The machine is the node's clocks and its scheduler: wall clocks
// are off by seconds or an hour and step, rates differ by up to 3 %, and a stopped machine runs no goroutine of the node, fires no
// timer and receives nothing, whether or not its monotonic clock stands still too. Nodes crash, are closed in the middle of their work, and start anew.
//
// A run has five parts: the storm; a calm in which nobody wants anything, so that what is left over must be cleared away by the library
// itself and not by the next who asks; one in which every node asks for every key; a crash without other faults; and the
// end, after which nothing may run.
//
// What is checked, by the names of the protocol:
//
//	I1   a resource that compares tokens never refuses a lease that is held
//	I2   the tokens of a key grow with every grant
//	I3   nobody is granted a key, writes its row or kills its holder's session while the holder believes in its lease, as told by
//	     Held on its own clocks; no lease is believed in after a later grant
//	I4   no write changes a row of another live session, or of another session's lease
//	I5   nothing blocks for ever; after a crash a waiter has the key within the bound
//	I6   lost answers on a free key cost attempts, never a TTL
//	I7   a lease that was not held once never is again
//	I8   nothing is returned that is not held
//	I10  no row of a live session is nobody's for longer than a resolver needs; a closed client has no timer, sends nothing and leaves no session
//	I11  the version of a row never goes back; a session that was deleted never lives again
//	R1   no lease row names a session that is not known to be there
//	R3   trust ends when the TTL less the margin has passed since before the last acknowledged heartbeat was sent, counted from outside
//
// What is not simulated: sweeping, eventual consistency, throttling by real capacity, a clock beyond its bounds, a suspension together with a
// backward step (the protocol excludes both), more than four nodes, and what the SDK does below its interface.
//
// Instants are distinct to the nanosecond, and fates and jitter depend on the seed and on what they are for, not on the order in
// which goroutines run, so that a seed gives the same run again in nearly all cases, if the library draws its jitter from
// its clock. A seed that failed is kept in testdata/seeds and runs first from then on.
package sim
