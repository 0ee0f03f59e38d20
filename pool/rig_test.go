package pool_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// long reports whether what takes minutes runs in full: every night, not with
// every change.
func long() bool { return os.Getenv("DYNALOCK_TEST_LONG") != "" }

// ledger is what the handlers of all members of a pool write down: who works on
// what, since when, with which token.
type ledger struct {
	mu sync.Mutex
	// working are the handlers that have begun and not ended, by partition and member.
	working map[string]string
	tokens  map[string]uint64
	// begun counts the beginnings of each member, moves all that were not the
	// first of their partition with anybody.
	begun    map[string]int
	moves    int
	last     map[string]string
	overlaps []string
	at       map[string]time.Time
}

func newLedger() *ledger {
	return &ledger{
		working: map[string]string{}, tokens: map[string]uint64{}, begun: map[string]int{}, last: map[string]string{},
		at: map[string]time.Time{},
	}
}

func (b *ledger) begin(member string, l *pool.Work) {
	b.mu.Lock()
	defer b.mu.Unlock()
	key := l.Key()
	if other, ok := b.working[key]; ok {
		b.overlaps = append(b.overlaps, fmt.Sprintf("%s: %s began while %s was at work", key, member, other))
	}
	if l.Token() < b.tokens[key] {
		b.overlaps = append(b.overlaps, fmt.Sprintf("%s: token %d after %d", key, l.Token(), b.tokens[key]))
	}
	b.tokens[key] = l.Token()
	b.working[key] = member
	b.begun[member]++
	if last, ok := b.last[key]; ok && last != member {
		b.moves++
	}
	b.last[key], b.at[key] = member, time.Now()
}

func (b *ledger) end(member string, l *pool.Work) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.working[l.Key()] == member {
		delete(b.working, l.Key())
	}
}

// load returns how many partitions each member works on.
func (b *ledger) load() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	load := map[string]int{}
	for _, member := range b.working {
		load[member]++
	}
	return load
}

func (b *ledger) takeMoves() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer func() { b.moves = 0 }()
	return b.moves
}

func (b *ledger) requireNoOverlap(t *testing.T) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	require.Empty(t, b.overlaps)
}

// handler works until it is asked to stop.
func (b *ledger) handler(member string) pool.Handler {
	return func(ctx context.Context, l *pool.Work) error {
		b.begin(member, l)
		defer b.end(member, l)
		select {
		case <-l.Draining():
		case <-ctx.Done():
		}
		return nil
	}
}

// member is one Run of a pool by a client of its own.
type member struct {
	*pool.Pool
	client *lease.Client
	link   *link
	stop   context.CancelFunc
	ended  chan error
}

// member starts a member of the pool "p" at the client's defaults. Its handler
// is that of the ledger unless another is given.
func (w *world) member(name string, handle pool.Handler, options ...pool.Option) *member {
	w.t.Helper()
	c, l := w.client(name, lease.WithTTL(lease.DefaultTTL))
	return w.run(&member{client: c, link: l}, handle, options...)
}

// run starts a Run of the pool by m's client.
func (w *world) run(m *member, handle pool.Handler, options ...pool.Option) *member {
	w.t.Helper()
	p, err := pool.New(m.client, "p", handle, options...)
	require.NoError(w.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	m.Pool, m.stop, m.ended = p, cancel, make(chan error, 1)
	go func() { m.ended <- p.Run(ctx) }()
	w.t.Cleanup(func() { m.link.SetCut(false); cancel() })
	return m
}

// leave stops the member and waits for it.
func (m *member) leave(t *testing.T) {
	t.Helper()
	m.stop()
	require.NoError(t, <-m.ended)
}

// crash cuts the member off for good; its handlers, which are told at the trust
// deadline, are at work no longer.
func (m *member) crash(b *ledger, name string) {
	m.link.SetCut(true)
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, member := range b.working {
		if member == name {
			delete(b.working, key)
		}
	}
}

// partitions adds n partitions to the pool.
func (w *world) partitions(n int) {
	w.t.Helper()
	c, err := lease.New(w.store)
	require.NoError(w.t, err)
	p, err := pool.New(c, "p", func(context.Context, *pool.Work) error { return nil })
	require.NoError(w.t, err)
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%05d", i)
	}
	require.NoError(w.t, p.Add(w.t.Context(), names...))
	require.NoError(w.t, c.Close(w.t.Context()))
}

// await waits until the members work on n partitions together, none on more
// than one more than another, and returns how long that took.
func (b *ledger) await(t *testing.T, limit time.Duration, n, members int) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		load := b.load()
		counts := slices.Sorted(maps.Values(load))
		sum := 0
		for _, c := range counts {
			sum += c
		}
		if sum == n && len(counts) == members && counts[len(counts)-1]-counts[0] <= 1 {
			return time.Since(began)
		}
		require.Less(t, time.Since(began), limit, "load: %v", load)
		time.Sleep(500 * time.Millisecond)
	}
}

// heldRows returns the partitions that somebody has.
func (w *world) heldRows() (held []string) {
	p, _ := w.tool()
	for row, err := range p.Partitions(context.Background()) {
		require.NoError(w.t, err)
		if row.Owner != "" {
			held = append(held, row.Name)
		}
	}
	return held
}
