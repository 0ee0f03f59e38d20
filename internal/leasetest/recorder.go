package leasetest

import (
	"fmt"
	"sync"
	"testing/synctest"

	"github.com/dynalock/dynalock/lease"
)

// Recorder is an observer that remembers. Use it inside a synctest bubble.
type Recorder struct {
	mu     sync.Mutex
	events []lease.Event
}

// Observe is the observer.
func (r *Recorder) Observe(e lease.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

// Of returns the events of a type.
func (r *Recorder) Of(want lease.EventType) (found []lease.Event) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Type == want {
			found = append(found, e)
		}
	}
	return found
}

// Take returns what came since it was called last, without heartbeats.
func (r *Recorder) Take() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for _, e := range r.events {
		if e.Type != lease.EventHeartbeat {
			lines = append(lines, fmt.Sprint(e.Type, " ", e.Key, e.Owner, e.Reason))
		}
	}
	r.events = nil
	return lines
}
