package election_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

const (
	ttl = 10 * time.Second
	// margin is what a lease client leaves its holders, poll the longest of a
	// candidate's and an observer's.
	margin = ttl / 10
	poll   = time.Second
	// bound is I5: within it somebody leads after a crash.
	bound = ttl + ttl/16 + ttl/3 + poll
)

var errLost = errors.New("answer lost")

// polled is a store that does not tell of changes by itself, as DynamoDB.
type polled struct{ kv.Store }

// link is one process's way to the store. Watches go around it.
type link struct {
	kv.Store

	mu    sync.Mutex
	calls map[string]int
	fault kv.Hook // nil: none
	// faulty ends with the fault, and with it the calls that it holds up.
	faulty context.Context
	mend   context.CancelFunc
}

func newLink(store kv.Store) *link {
	l := &link{calls: map[string]int{}}
	l.inject(nil)
	l.Store = kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		l.mu.Lock()
		l.calls[call.Op]++
		fault, faulty := l.fault, l.faulty
		l.mu.Unlock()
		if fault == nil {
			return next(ctx)
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(faulty, cancel)()
		return fault(ctx, call, next)
	})
	return l
}

func (l *link) Unwrap() kv.Store { return l.Store }

func (l *link) inject(fault kv.Hook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mend != nil {
		l.mend()
	}
	l.fault = fault
	l.faulty, l.mend = context.WithCancel(context.Background())
}

// take returns the calls made since it was called last.
func (l *link) take() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.calls
	l.calls = map[string]int{}
	return calls
}

func isWrite(call kv.Call) bool { return strings.HasPrefix(call.Op, "Atomic") }

// cut is a fault: every call hangs until its driver gives up.
func cut(ctx context.Context, call kv.Call, _ func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	<-ctx.Done()
	if isWrite(call) {
		return &kv.UncertainError{Key: call.Key, Err: ctx.Err()}
	}
	return ctx.Err()
}

// loseAnswers is a fault: writes of keys with the prefix are carried out, and
// their answers are lost.
func loseAnswers(prefix string) kv.Hook {
	return func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		err := next(ctx)
		if err == nil && isWrite(call) && strings.HasPrefix(call.Key, prefix) {
			return &kv.UncertainError{Key: call.Key, Err: errLost}
		}
		return err
	}
}

// process is a candidate or observer with a client, a clock and a link of its own.
type process struct {
	*election.Election
	client *lease.Client
	link   *link
	clock  *clock.Skewed
	log    *logged
}

// newProcess makes one; its client is closed at the end of the test.
func newProcess(t *testing.T, store kv.Store, name string, rate float64, options ...election.Option) *process {
	t.Helper()
	p := &process{link: newLink(store), clock: clock.NewSkewed(clock.System, rate, 0), log: &logged{}}
	var err error
	p.client, err = lease.New(p.link, lease.WithTTL(ttl), lease.WithOwner(name), lease.WithClock(p.clock))
	require.NoError(t, err)
	t.Cleanup(func() {
		p.link.inject(nil)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = p.client.Close(ctx) // tests leave terms on purpose
	})
	all := append([]election.Option{election.WithClock(p.clock),
		election.WithLogger(slog.New(slog.NewTextHandler(p.log, nil)))}, options...)
	p.Election, err = election.New(p.client, "scheduler", all...)
	require.NoError(t, err)
	return p
}

// two makes two candidates on a store.
func two(t *testing.T) (store *memkv.Store, a, b *process) {
	t.Helper()
	store = memkv.New()
	return store, newProcess(t, store, "a", 1), newProcess(t, store, "b", 1)
}

func (p *process) campaign(t *testing.T) *election.Term {
	t.Helper()
	synctest.Wait() // what a fault has held up has ended
	term, err := p.Campaign(t.Context(), []byte(t.Name()))
	require.NoError(t, err)
	return term
}

// campaigning campaigns in the background.
func (p *process) campaigning(t *testing.T) <-chan won {
	t.Helper()
	got := make(chan won, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 20*ttl)
		defer cancel()
		term, err := p.Campaign(ctx, nil)
		got <- won{term, err, time.Now()}
	}()
	return got
}

type won struct {
	*election.Term
	err error
	at  time.Time
}

// candidates returns the owners of those that take part.
func (p *process) candidates(t *testing.T) []string {
	t.Helper()
	owners := []string{}
	for m, err := range p.Candidates(t.Context()) {
		require.NoError(t, err)
		owners = append(owners, m.Owner)
	}
	return owners
}

// logged keeps what was logged.
type logged struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// meet lets a process learn that its store answers.
func (p *process) meet(t *testing.T) {
	t.Helper()
	for _, err := range p.Candidates(t.Context()) {
		require.NoError(t, err)
	}
}
