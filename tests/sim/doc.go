// Package sim runs the real lease layer and the real DynamoDB driver through
// seeded storms, and checks the protocol's invariants all the time. Everything
// is in its tests.
//
// One run is one testing/synctest bubble: a DynamoDB in memory, a few nodes
// around it, and time that jumps from event to event. Each node has a lease
// client, a driver, a network and a machine of its own. The network sits below
// the driver, so that its retries run: requests and answers are slow, are lost,
// land seconds after their caller has given up, or twice; the server throttles,
// fails, is out of reach, refuses for a while what somebody has to mend, takes
// seconds and fails then, says that a clock is wrong; links are cut in one
// direction or both. The machine is the node's clocks and its scheduler: wall
// clocks are off by seconds or an hour and step, or are that wrong for seconds;
// rates differ by up to 3 %, and a stopped machine runs no goroutine of the
// node, fires no timer and receives nothing, whether or not its monotonic clock
// stands still too. Nodes crash, are closed in the middle of their work, and
// start anew. Somebody deletes rows by hand, with a program of this library or
// another one. An operator's process does nothing but sweep.
//
// A run begins with a storm, in which the nodes do what the run has drawn for
// them: hold a mutex, try, give up, keep a key from others for a while
// (WithMinHold, WithLockDelay, WithMaxHold), take any of several keys, use a
// fenced resource, read or write one with two bars, keep a value, break, run
// slots once, campaign and observe, work in a pool and mark its partitions,
// clone a session, sweep what crashes have left, join a group, look at a row
// that is held (WithRowCheck). Half of the runs do few of these, so that they
// meet each other. Then comes a calm in which nobody wants anything, so that
// what is left over must be cleared away by the library itself and not by the
// next who asks; every node asks for every key; observers follow an election;
// answers are lost; a holder crashes without other faults; every partition is
// worked on; rows are deleted under a leader, a member and a holder; an
// operator sweeps what a crash has left while somebody takes it over; and at
// the end nothing may run.
//
// What is checked, by the names of the protocol:
//
//	I1   a resource that compares tokens never refuses a lease that is held
//	I2   the tokens of a key grow with every grant
//	I3   nobody is granted a key, writes its row or kills its holder's session
//	     while the holder believes in its lease, as told by Held on its own
//	     clocks; no lease is believed in after a later grant
//	I4   no write changes a row of another live session, or of another
//	     session's lease
//	I5   nothing blocks for ever; after a crash a waiter has the key within the
//	     bound
//	I6   lost answers on a free key cost attempts, never a TTL
//	I7   a lease that was not held once never is again
//	I8   nothing is returned that is not held
//	I9   an observer sees no leader who was not elected with that token, no
//	     token after a greater one, and what lasts within two polls
//	I10  no row of a live session is nobody's for longer than a resolver needs;
//	     a closed client has no timer, sends nothing and leaves no session
//	I11  the version of a row never goes back; a session that was deleted never
//	     lives again
//	I13  one who waits reads the row no sooner than a poll after the last request
//	     for it, and later with each failure, up to seconds; what is asked for one
//	     call that waits, or for none, is bounded too, while requests fail or not
//	I14  nobody is granted a lock of readers and writers beside a writer who
//	     believes in his, nor a writer beside a reader who does; a resource
//	     with two bars refuses nobody who holds it, and serves nobody between
//	     two acts of one whom that excludes
//	once a slot is started at most once, or never again after it was done; nobody is told of an outcome that is not one
//	pool a partition has one handler at a time, which has returned before Run does; without faults each is worked on
//	R9.3 an acquire that waits ends with its context, with Close, or with a refusal
//	     that has lasted for two TTL, once the store has answered
//	join a session of a member says so, and so does each heartbeat
//	deleted  a leader whose row is deleted notices within a TTL, without faults
//	sweep    nothing of a process that has crashed is left by a Sweep, without
//	     faults
//	R1   no lease row names a session that is not known to be there
//	R2   a session that a clone has heartbeat is never heartbeat by its owner
//	     again
//	R3   trust ends when the TTL less the margin has passed since before the
//	     last acknowledged heartbeat was sent, counted from outside
//
// Who holds a lease whose row, or that of its session, was deleted by hand is
// not judged any more by I1, I3 and I14, as a second one may have the key then.
// What it writes is.
//
// What is not simulated: rows of leases that vanish without a tombstone,
// backups that are restored, eventual consistency, throttling by real capacity,
// a clock beyond its bounds, a suspension together with a backward step (the
// protocol excludes both), more than four nodes, and what the SDK does below
// its interface.
//
// Instants are distinct to the nanosecond, and fates and jitter depend on the
// seed and on what they are for, not on the order in which goroutines run, so
// that a seed without a pool gives the same run again in nearly all cases. A
// seed that failed is kept in testdata/seeds and runs first from then on.
package sim
