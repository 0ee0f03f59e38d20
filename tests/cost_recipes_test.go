package tests_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
	"github.com/dynalock/dynalock/pool"
)

// tally counts a client's requests.
type tally struct {
	mu                      sync.Mutex
	writes, reads, listings int
}

func (n *tally) hook(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	n.mu.Lock()
	switch call.Op {
	case "Get", "Exists":
		n.reads++
	case "List", "ListPage":
		n.listings++
	default:
		n.writes++
	}
	n.mu.Unlock()
	return next(ctx)
}

// counted is a client whose session is there and whose requests are counted.
type counted struct {
	*lease.Client
	*tally
}

// shop is a store with clients on it.
type shop struct {
	t     *testing.T
	store kv.Store
}

func (s *shop) client() *counted {
	n := &tally{}
	c, err := lease.New(kv.Instrument(s.store, n.hook))
	require.NoError(s.t, err)
	s.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // it may hold what it holds
		_ = c.Close(ctx)
	})
	require.NoError(s.t, lock.NewMutex(c, "warm").Do(s.t.Context(), nothing))
	return &counted{c, n}
}

func nothing(context.Context, *lease.Lease) error { return nil }

// cost is what do sends, as a row of the table.
func (s *shop) cost(what string, c *counted, do func() error) []string {
	*c.tally = tally{}
	if err := do(); err != nil {
		require.ErrorIs(s.t, err, lease.ErrHeld, what)
	}
	return []string{what, strconv.Itoa(c.writes), strconv.Itoa(c.reads), strconv.Itoa(c.listings)}
}

// recipesTable measures what recipes cost.
func recipesTable(t *testing.T) string {
	rows := [][]string{{"Recipe", "Writes", "Reads", "Listings"}}
	for _, measure := range []func(context.Context, *shop) [][]string{
		costOfMutex, costOfMulti, costOfSemaphore, costOfRWMutex, costOfOnce, costOfAny, costOfPool,
	} {
		rows = append(rows, measure(t.Context(), &shop{t, memkv.New()})...)
	}
	return markdown(rows)
}

func costOfMutex(ctx context.Context, s *shop) [][]string {
	a, b := s.client(), s.client()
	free := s.cost("`Mutex.Do` or `TryDo`, free", a,
		func() error { return lock.NewMutex(a.Client, "m").TryDo(ctx, nothing) })
	_, err := a.Acquire(ctx, "m")
	require.NoError(s.t, err)
	try := func() error { return lock.NewMutex(b.Client, "m").TryDo(ctx, nothing) }
	return [][]string{
		free, s.cost("`Mutex.TryDo`, held, its holder not seen of late", b, try),
		s.cost("`Mutex.TryDo`, held, its holder seen a moment ago", b, try),
	}
}

func costOfMulti(ctx context.Context, s *shop) [][]string {
	a, b := s.client(), s.client()
	m := lock.NewMulti(a.Client, []string{"x", "y", "z"})
	free := s.cost("`Multi.Do` of 3 names, free", a, func() error {
		return m.Do(ctx, func(context.Context, *lock.MultiLease) error { return nil })
	})
	_, err := b.Acquire(ctx, "z")
	require.NoError(s.t, err)
	try := func() error {
		_, err := m.TryLock(ctx)
		return err
	}
	_ = try()
	return [][]string{free, s.cost("`Multi.TryDo` of 3 names, the last is held", a, try)}
}

func costOfSemaphore(ctx context.Context, s *shop) [][]string {
	a, b := s.client(), s.client()
	mine, theirs := lock.NewSemaphore(a.Client, "s", 5), lock.NewSemaphore(b.Client, "s", 5)
	rows := [][]string{
		s.cost("`Semaphore.Do`, 5 free permits, for the first time ever", a, func() error { return mine.Do(ctx, nothing) }),
		s.cost("`Semaphore.Do`, 5 free permits", a, func() error { return mine.Do(ctx, nothing) }),
	}
	for range 4 {
		_, err := theirs.Acquire(ctx)
		require.NoError(s.t, err)
	}
	for row := []string(nil); ; { // until one begins at a permit that is taken: four of five do
		c := s.client()
		other := lock.NewSemaphore(c.Client, "s", 5)
		_, err := other.Holders(ctx)
		require.NoError(s.t, err)
		if row = s.cost("`Semaphore.Do`, one of 5 is free, and not the first that it tries", c, func() error {
			return other.Do(ctx, nothing)
		}); c.listings > 0 {
			row[2] = strconv.Itoa(c.reads - 1) // the number of permits
			rows = append(rows, row)
			break
		}
	}
	_, err := theirs.Acquire(ctx)
	require.NoError(s.t, err)
	try := func() error { return mine.TryDo(ctx, nothing) }
	_ = try()
	return append(rows,
		s.cost("`Semaphore.TryDo`, full, its holders seen a moment ago", a, try),
		s.cost("`Semaphore.Resize`", a, func() error { return mine.Resize(ctx, 6) }))
}

func costOfRWMutex(ctx context.Context, s *shop) [][]string {
	a, b := s.client(), s.client()
	mine, theirs := lock.NewRWMutex(a.Client, "m"), lock.NewRWMutex(b.Client, "m")
	read := func(context.Context, *lock.ReadLease) error { return nil }
	rows := [][]string{
		s.cost("`RWMutex.RDo`, for the first time ever", a, func() error { return mine.RDo(ctx, read) }),
		s.cost("`RWMutex.RDo`, nobody writes", a, func() error { return mine.RDo(ctx, read) }),
		s.cost("`RWMutex.TryRDo`, nobody writes", a, func() error { return mine.TryRDo(ctx, read) }),
		s.cost("`RWMutex.Do`, free", a, func() error { return mine.Do(ctx, nothing) }),
		s.cost("`RWMutex.TryDo`, free", a, func() error { return mine.TryDo(ctx, nothing) }),
	}
	r, err := theirs.RLock(ctx)
	require.NoError(s.t, err)
	try := func() error { return mine.TryDo(ctx, nothing) }
	_ = try()
	rows = append(rows, s.cost("`RWMutex.TryDo`, others read, seen a moment ago", a, try))
	require.NoError(s.t, r.Release(ctx))
	_, err = theirs.Lock(ctx)
	require.NoError(s.t, err)
	return append(rows,
		s.cost("`RWMutex.TryRDo`, another writes, seen a moment ago", a, func() error { return mine.TryRDo(ctx, read) }),
		s.cost("`RWMutex.TryDo`, another writes, seen a moment ago", a, try))
}

func costOfOnce(ctx context.Context, s *shop) [][]string {
	a, b := s.client(), s.client()
	ask := func(c *counted) func() error {
		return func() error {
			_, err := lock.OnceValue(ctx, lock.NewOnce(c.Client, "job"), "slot",
				func(context.Context, *lease.Lease) (int, error) { return 1, nil })
			return err
		}
	}
	return [][]string{
		s.cost("`Once.Do`, `Claim` and `Finish`, or `OnceValue`: who runs it", a, ask(a)),
		s.cost("the same: who comes later", b, ask(b)),
	}
}

func costOfAny(ctx context.Context, s *shop) [][]string {
	a, b := s.client(), s.client()
	keys := []string{"any/1", "any/2", "any/3"}
	take := func(c *counted, options ...lease.AcquireOption) func() error {
		return func() error {
			_, err := c.TryAcquireAny(ctx, keys, options...)
			return err
		}
	}
	row := s.cost("`TryAcquireAny` of 3 keys, free", a, take(a))
	require.NoError(s.t, errors.Join(take(a)(), take(a)()))
	_ = take(b)()
	return [][]string{
		row, s.cost("`TryAcquireAny` of 3 keys, all held by others", b, take(b)),
		s.cost("the same with `WithListing`", b, take(b, lease.WithListing("any/", nil))),
		s.cost("`TryAcquireAny` of 3 keys, all held by this client", a, take(a)),
	}
}

func costOfPool(ctx context.Context, s *shop) [][]string {
	a := s.client()
	p, err := pool.New(a.Client, "p", nil)
	require.NoError(s.t, err)
	var names []string
	for i := range 100 {
		names = append(names, fmt.Sprint(i))
	}
	return [][]string{
		s.cost("`Pool.Add` of 100 partitions", a, func() error { return p.Add(ctx, names...) }),
		s.cost("`Pool.Progress` of up to a page of partitions", a, func() error {
			_, err := p.Progress(ctx)
			return err
		}),
	}
}
