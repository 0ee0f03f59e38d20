// Package chaos runs the lease layer in real processes and harms them: kill -9,
// SIGSTOP for longer than the TTL, and, on DynamoDB Local, connections that are
// cut, black-holed in one direction, delayed beyond their sender's patience, or
// that lose their answers.
//
// Each worker is a process with one lease.Client that contends for every key.
// What it does under a lease goes to a resource that refuses older tokens than
// it has seen, and to a log, with the time of a clock that all processes of the
// machine share. When it is over a checker, which has tests of its own, looks
// in all the logs for what must not be:
//
//	I1  the resource accepted a token older than one it had seen
//	I2  a later acquisition of a key had a token that was not greater
//	I3  two processes believed at one instant that they held a key, by Lease.Held evaluated there
//	I5  a key whose holder was killed was not granted again in time
//	I7  Held was true again after it had been false, or after Release
//
// Nothing here is replayable: a run is worth what its minutes are. `make test`
// has about 20 seconds on both stores at once, `make chaos MINUTES=n` as many
// minutes as one has. What only a bent clock shows (rates, steps, freezes of a
// whole machine), package sim has: a stopped process' clocks go on.
package chaos
