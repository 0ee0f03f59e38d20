package lock

import (
	"context"
	"fmt"
	"iter"
	"net/url"
	"strings"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// FoundSlot is a slot of a Once as its row was read.
type FoundSlot struct {
	// Job and Slot name it. Key is that of its lease, as Once.Key returns it.
	Job, Slot, Key string
	// Session is that of who has claimed it, "" if nobody has. A process that died
	// may still be named: then the slot is abandoned, though its Outcome says that it
	// is running.
	Session string
	// Outcome is what became of it.
	Outcome Outcome
}

// Slots returns the slots of all jobs whose outcomes are kept or that are claimed, in
// the order of their keys: for people who want to see how jobs went. It costs a listing
// of them: a strong one, unless the options say kv.EventuallyConsistent.
//
// The error of a row that cannot be read comes with a FoundSlot that has its names and
// nothing else, and the listing goes on. An error without a FoundSlot ends it. A nil
// client is an error that matches lease.ErrInvalid.
func Slots(
	ctx context.Context, client *lease.Client, options ...kv.ReadOption,
) iter.Seq2[*FoundSlot, error] {
	return func(yield func(*FoundSlot, error) bool) {
		if client == nil {
			yield(nil, errNoClient("Slots"))
			return
		}
		for h, err := range client.Keys(ctx, rows.OnceKeys, options...) {
			if h == nil {
				yield(nil, fmt.Errorf("lock: Slots: %w", err))
				return
			}
			s := &FoundSlot{Key: h.Key}
			if s.Job, s.Slot = slotOf(h.Key); s.Slot == "" {
				continue // no slot has such a key
			}
			if err == nil {
				s.Session = h.Session
				s.Outcome, err = outcomeIn(h)
			}
			if !yield(s, err) {
				return
			}
		}
	}
}

// slotOf undoes Once.Key. slot is "" if key is not one that it returns.
func slotOf(key string) (job, slot string) {
	key = strings.TrimPrefix(key, rows.OnceKeys)
	at := strings.LastIndexByte(key, '/') // a slot's own slashes are escaped
	if at < 1 {
		return "", ""
	}
	slot, err := url.PathUnescape(key[at+1:])
	if err != nil {
		return "", ""
	}
	return key[:at], slot
}
