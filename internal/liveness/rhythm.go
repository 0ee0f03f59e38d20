package liveness

import (
	"time"

	"github.com/dynalock/dynalock/internal/rows"
)

// rhythm says when a session's next heartbeat shows, so that a look comes soon
// after it. Death counts from the first look that showed the last heartbeat. The
// later that was, the longer a waiter waits.
//
// It goes by the wall clock's time in the row, and by how long the holder means to
// wait from there. That is a hint when to look, and proves nothing. Clocks may be
// off and heartbeats late. So it learns how long after the time in the row a
// heartbeat shows, and closes in on that from both sides.
type rhythm struct {
	// version is that of the row at the last look.
	version uint64
	// shows is an age, by our wall clock, at which a heartbeat was found to show,
	// hides one at which it was found not to show yet.
	shows, hides time.Duration
	// missed is how many looks in a row came before the heartbeat that they were for.
	missed int
}

// slack is how long after a heartbeat is due it is looked for when the clocks
// agree. exact is how close hides and shows get.
func slack(ttl time.Duration) time.Duration { return ttl / 300 }
func exact(ttl time.Duration) time.Duration { return ttl / 64 }

// next returns when to look again after a look at a row of that version, which was
// written age ago by the wall clocks. The session is dead in deadIn if it stays as
// it is.
func (r *rhythm) next(version uint64, row *rows.Session, age, deadIn time.Duration) time.Duration {
	ttl, interval := row.Lifetime(), row.NextBeat()
	if interval < ttl/4 || interval > ttl*2/5 {
		return ttl / 3 // it does not say, or beats in another rhythm
	}
	if version != r.version {
		r.shown(ttl, interval, age)
		r.version = version
	} else if age-interval >= r.aim(ttl)-slack(ttl) {
		return r.miss(ttl, age-interval, deadIn)
	}
	return interval + r.aim(ttl) - age
}

// aim is how long after the time in the row a heartbeat is looked for.
func (r *rhythm) aim(ttl time.Duration) time.Duration {
	if window := r.shows - r.hides; window > exact(ttl) {
		return r.hides + window/2
	}
	return r.shows
}

// shown learns from a heartbeat that shows at the age.
func (r *rhythm) shown(ttl, interval, age time.Duration) {
	switch {
	case r.version == 0 && age >= 0 && age < interval: // the clocks agree, as far as one sees
		r.shows, r.hides = slack(ttl), 0
	case r.version == 0:
		r.shows, r.hides = age, age-interval
	case r.missed > 0 || age < r.shows:
		r.shows = age
	}
	if r.hides > 0 {
		r.hides = max(0, r.hides-slack(ttl)/8) // what made it late may pass
	}
	r.hides, r.missed = min(r.hides, r.shows), 0
}

// miss learns from a heartbeat that does not show at the age. It is looked for
// once where it was found before, and once a tenth of the TTL later. From then on
// the looks are as few as there can be no more than a third of the TTL apart.
func (r *rhythm) miss(ttl, age, deadIn time.Duration) time.Duration {
	r.missed++
	r.hides = max(r.hides, age)
	if left := r.shows - r.hides; r.missed == 1 && left > slack(ttl) {
		return left
	}
	r.missed = max(r.missed, 2)
	if r.missed == 2 {
		return ttl / 10
	}
	deadIn = max(0, deadIn)
	return deadIn / (deadIn/(ttl/3) + 1)
}
