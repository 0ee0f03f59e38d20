package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/retry"
	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/internal/seam"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// MaxPermits is how many permits a Semaphore has at most.
const MaxPermits = 1000

// sizeAge is how old the number of permits may be when one is acquired.
const sizeAge = lease.DefaultTTL

// Bounds of the pauses while that number cannot be read.
const (
	shortestPause = 50 * time.Millisecond
	longestPause  = 5 * time.Second
)

// Semaphore lets a number of holders work at a time, over all processes that name
// it. Each permit is a lease with a key and a fencing token of its own: a resource
// that keeps the greatest token of each key never serves more at once than there
// are permits. It is safe for concurrent use. Use NewSemaphore. The zero Semaphore
// refuses every call.
//
// All permits of a process that dies come back together, as its locks do. There is
// no order between processes.
type Semaphore struct {
	client  *lease.Client
	name    string
	permits int
	options []lease.AcquireOption

	mu   sync.Mutex
	size int // 0: not known
	// read is when the request was sent that showed size.
	read clock.Reading
}

// NewSemaphore returns the semaphore called name with 1 to MaxPermits permits. The
// first to use it records the number, and everybody must name the same one: another
// is an error of each call that names both. Resize changes how many there are from
// then on, but not the number to name. The options go with every acquisition.
// NewSemaphore does no I/O. A nil client, a bad name, number or option is an error
// of each call, which matches lease.ErrInvalid.
func NewSemaphore(client *lease.Client, name string, permits int, options ...lease.AcquireOption) *Semaphore {
	return &Semaphore{client: client, name: name, permits: permits, options: slices.Clone(options)}
}

// prefix is what all keys of the semaphore begin with. No name lies within
// another.
func (s *Semaphore) prefix() string { return rows.SemaphoreKeys + url.PathEscape(s.name) + "/" }

// sizeKey is that of the row that counts the permits.
func (s *Semaphore) sizeKey() string { return s.prefix() + "n" }

// keys are those of n permits.
func (s *Semaphore) keys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = s.prefix() + strconv.Itoa(i)
	}
	return keys
}

// sizeRecord is the value of the row that counts the permits.
type sizeRecord struct {
	Format int `json:"f"`
	// Permits is the number to name, Size how many there are.
	Permits int `json:"permits"`
	Size    int `json:"size"`
}

// decode reads what the row h says.
func (s *Semaphore) decode(h *lease.Holder) (sizeRecord, error) {
	var r sizeRecord
	err := json.Unmarshal(h.Value, &r)
	switch {
	case err != nil || r.Format != 1 || r.Size < 1 || r.Size > MaxPermits:
		return r, formatError(h.Key, "not the permits of a semaphore")
	case r.Permits != s.permits:
		return r, fmt.Errorf("lock: semaphore %q: %d permits here, %d where it was used first: want the same: %w",
			s.name, s.permits, r.Permits, lease.ErrInvalid)
	}
	return r, nil
}

// row returns the row that counts the permits, making it if need be.
func (s *Semaphore) row(ctx context.Context) (*lease.Holder, sizeRecord, error) {
	sent := clock.System.Now()
	h, err := s.client.Holder(ctx, s.sizeKey())
	if err == nil && !h.Kept {
		value, _ := json.Marshal(sizeRecord{1, s.permits, s.permits}) // numbers
		h, err = s.client.Keep(ctx, s.sizeKey(), value)
	}
	if err != nil {
		return nil, sizeRecord{}, err
	}
	r, err := s.decode(h)
	if err == nil {
		s.note(r.Size, sent)
	}
	return h, r, err
}

// note notes the number of permits, as it was read by a request sent at.
func (s *Semaphore) note(size int, at clock.Reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.size, s.read = size, at
}

// check refuses a Semaphore that cannot be used.
func (s *Semaphore) check(method string) error {
	switch {
	case s.client == nil:
		return errNoClient(method)
	case s.name == "" || s.permits < 1 || s.permits > MaxPermits:
		return fmt.Errorf("lock: %s: semaphore %.40q of %d permits: want a name and 1 to %d: %w",
			method, s.name, s.permits, MaxPermits, lease.ErrInvalid)
	}
	return nil
}

// current returns how many permits there are, read no longer than sizeAge ago.
func (s *Semaphore) current(ctx context.Context) (int, error) {
	s.mu.Lock()
	size, age := s.size, clock.System.Now().Since(s.read)
	s.mu.Unlock()
	if size > 0 && age < sizeAge {
		return size, nil
	}
	_, r, err := s.row(ctx)
	return r.Size, err
}

// Acquire blocks until it has a permit or ctx is done. On success the caller
// releases the lease when its work is done, and stops its work when the lease's
// context ends. On failure it holds nothing. Goroutines of one client are served in
// order.
//
// It costs what lease.Client.AcquireAny costs, and one read when the number of
// permits was not read for 15 s. The first time ever it costs one write more.
func (s *Semaphore) Acquire(ctx context.Context) (*lease.Lease, error) {
	if err := s.check("Acquire"); err != nil {
		return nil, err
	}
	return s.acquire(ctx, s.await, (*lease.Client).AcquireAny)
}

// TryAcquire takes a permit if there is one. Otherwise it returns a
// *lease.HeldError with all Holders. On any error the caller holds nothing. It
// costs what Acquire costs. If all permits are taken, it is one write, one listing,
// and a read of each holder's session that was not seen lately. It takes at most
// 3 s, whatever the store does, unless ctx has a deadline.
func (s *Semaphore) TryAcquire(ctx context.Context) (l *lease.Lease, err error) {
	if err := s.check("TryAcquire"); err != nil {
		return nil, err
	}
	err = try(ctx, s.client, s.name, func(ctx context.Context) error {
		l, err = s.acquire(ctx, s.current, (*lease.Client).TryAcquireAny)
		return err
	})
	return l, err
}

// await is current that waits out what waiting mends, as lease.Client.Acquire does,
// until Close begins.
func (s *Semaphore) await(ctx context.Context) (size int, err error) {
	ctx, stop := under(ctx, s.client.Context())
	defer stop()
	client := seam.Of(s.client)
	pauses := retry.PausesBetween(clock.System, shortestPause, longestPause)
	for began := clock.System.Now(); ; {
		size, err = s.current(ctx)
		switch {
		case err == nil, retry.IsPermanent(err, lease.ErrInvalid):
			return size, err
		case ctx.Err() == nil && !client.Met():
			return 0, err
		}
		if errors.Is(err, kv.ErrRefused) && clock.System.Now().MonotonicSince(began) >= client.RefusedLimit {
			return 0, err
		}
		if clock.Sleep(ctx, clock.System, pauses.NextBackOff()) != nil {
			return 0, fmt.Errorf("%w, and before that: %w", context.Cause(ctx), err)
		}
	}
}

// acquire gets a permit with AcquireAny or TryAcquireAny. known says how many there
// are, and each listing does.
func (s *Semaphore) acquire(
	ctx context.Context, known func(context.Context) (int, error),
	acquireAny func(*lease.Client, context.Context, []string, ...lease.AcquireOption) (*lease.Lease, error),
) (*lease.Lease, error) {
	size, err := known(ctx)
	if err != nil {
		return nil, err
	}
	sent := clock.System.Now() // before the next listing is
	listing := lease.WithListing(s.prefix(), func(listed []*lease.Holder) []string {
		for _, h := range listed {
			if h.Key != s.sizeKey() {
				continue
			}
			if r, err := s.decode(h); err == nil {
				size = r.Size
				s.note(size, sent)
			}
		}
		sent = clock.System.Now()
		return s.keys(size)
	})
	return acquireAny(s.client, ctx, s.keys(size), append(slices.Clone(s.options), listing)...)
}

// Do runs fn with a permit. Everything else is as with Mutex.Do. It costs what
// Acquire costs, and one write.
func (s *Semaphore) Do(ctx context.Context, fn func(ctx context.Context, l *lease.Lease) error) error {
	if fn == nil {
		return errNoFunc("Do")
	}
	l, err := s.Acquire(ctx)
	if err != nil {
		return err
	}
	return do(ctx, l, fn)
}

// TryDo is Do if there is a permit. Otherwise fn is not called, and the error is
// that of TryAcquire.
func (s *Semaphore) TryDo(ctx context.Context, fn func(ctx context.Context, l *lease.Lease) error) error {
	if fn == nil {
		return errNoFunc("TryDo")
	}
	l, err := s.TryAcquire(ctx)
	if err != nil {
		return err
	}
	return do(ctx, l, fn)
}

// Holders returns who has permits, in the order of their keys' bytes. Holders that
// have died may be among them. It costs one listing.
func (s *Semaphore) Holders(ctx context.Context) ([]*lease.Holder, error) {
	if err := s.check("Holders"); err != nil {
		return nil, err
	}
	var holders []*lease.Holder
	for h, err := range s.client.Holders(ctx, s.prefix()) {
		if err != nil {
			return nil, err
		}
		holders = append(holders, h)
	}
	return holders, nil
}

// Resize makes the semaphore one of n permits, 1 to MaxPermits, for all processes.
// Who waits hears of it within 15 s. No call that begins 15 s after Resize has
// returned takes a permit beyond n. Who has one keeps it. The number to name stays
// as it is.
//
// It costs one read and one write. If others resize at the same time it tries
// again, three times in all. Then the error matches lease.ErrChanged and nothing is
// written. If the error matches kv.ErrUncertain, it is unknown whether it was.
func (s *Semaphore) Resize(ctx context.Context, n int) error {
	if err := s.check("Resize"); err != nil {
		return err
	}
	if n < 1 || n > MaxPermits {
		return fmt.Errorf("lock: Resize(%d): want 1 to %d: %w", n, MaxPermits, lease.ErrInvalid)
	}
	var err error
	for range attempts {
		var h *lease.Holder
		var r sizeRecord
		if h, r, err = s.row(ctx); err != nil {
			return err
		}
		r.Size = n
		value, _ := json.Marshal(r) // numbers
		sent := clock.System.Now()
		if err = s.client.Replace(ctx, h, value); err == nil {
			s.note(n, sent)
		}
		if !errors.Is(err, lease.ErrChanged) {
			break
		}
	}
	return err
}
