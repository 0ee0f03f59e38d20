package main

import "github.com/dynalock/dynalock/internal/clock"

// Kinds of events. Workers report all up to workerFinished, the parent the rest.
const (
	workerStarted  = "started"  // a worker is at work
	entryAcquired  = "acquired" // it begins to work on an entry, whose lock it has: Token, Takeover
	entryDone      = "done"     // its result was accepted: Token, Digest
	entryFenced    = "fenced"   // its result was refused: there is one with a greater token
	entryReleased  = "released" // it is about to release the lock
	entryLost      = "lost"     // it lost the lock while it worked: Error
	entryFailed    = "failed"   // it cannot do the entry, or not now: Error
	entrySeen      = "seen"     // it found that an entry has its result; not shown
	workerPaused   = "paused"   // it waits, in the middle of an entry, to be killed for -crash
	workerFinished = "finished" // it has ended: Error if not well
	workerKilled   = "killed"   // the parent killed it, for -crash
	workerExited   = "exited"   // its process has ended; not shown, unless it died without "finished": then "died"
	workerDied     = "died"
)

// Event is a line that a worker reports and that -json shows.
type Event struct {
	Event string `json:"event"`
	// At is the instant in nanoseconds, by a clock that all processes of this machine share.
	At int64 `json:"at"`
	// Until is when a lost lock had ended, which is before At if the worker was suspended.
	Until    int64  `json:"until,omitempty"`
	Worker   string `json:"worker,omitempty"`
	Entry    string `json:"entry,omitempty"`
	Token    uint64 `json:"token,omitempty"`
	Takeover bool   `json:"takeover,omitempty"`
	Digest   string `json:"digest,omitempty"`
	Error    string `json:"error,omitempty"`
	// Requests are the worker's store requests by kind, since it started.
	Requests map[string]int `json:"requests,omitempty"`
}

// instant reads a clock that processes of one machine share and that is not
// stepped, where there is one (Linux).
func instant() int64 {
	now := clock.System.Now()
	if now.Boot != 0 {
		return now.Boot.Nanoseconds()
	}
	return now.Wall.UnixNano()
}
