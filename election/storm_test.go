package election_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

const (
	storms     = 16
	candidates = 5
	// stormy is for how long faults strike; then the world calms down.
	stormy = 10 * time.Minute
)

// storm is five candidates and two observers on one store, and what strikes them.
type storm struct {
	t     *testing.T
	store *memkv.Store
	ctx   context.Context

	mu    sync.Mutex
	rand  *rand.Rand
	alive []*process
	made  int
	// terms are all that were won, by token.
	terms map[uint64]*election.Term
}

func (s *storm) chance() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rand.Float64()
}

func (s *storm) pause(least, most time.Duration) time.Duration {
	return least + time.Duration(s.chance()*float64(most-least))
}

// rate is that of a clock: two differ by less than 3 %.
func (s *storm) rate() float64 { return 0.986 + 0.028*s.chance() }

// candidate starts a process that campaigns again and again.
func (s *storm) candidate() *process {
	s.made++
	p := newProcess(s.t, s.store, fmt.Sprint("candidate-", s.made), s.rate())
	go func() {
		for s.ctx.Err() == nil {
			_ = p.Run(s.ctx, func(ctx context.Context, t *election.Term) error { return s.lead(ctx, t) })
			select {
			case <-time.After(time.Second):
			case <-s.ctx.Done():
			}
		}
	}()
	return p
}

// lead notes the term and leads for a while: until it resigns, and sometimes
// for longer than it may.
func (s *storm) lead(ctx context.Context, t *election.Term) error {
	s.mu.Lock()
	_, twice := s.terms[t.Token()]
	s.terms[t.Token()] = t
	s.mu.Unlock()
	if twice {
		s.t.Errorf("token %d was won twice", t.Token())
	}
	select {
	case <-ctx.Done():
		time.Sleep(s.pause(0, 3*time.Second))
	case <-time.After(s.pause(time.Second, 2*time.Minute)):
	}
	_ = t.Proclaim(ctx, []byte("bye"))
	return nil
}

// requireOneLeader checks, by each one's own clocks, that no two lead at once.
func (s *storm) requireOneLeader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var held []uint64
	for token, t := range s.terms {
		if t.Held() {
			held = append(held, token)
		}
	}
	if len(held) > 1 {
		s.t.Errorf("tokens %v are held at once", held)
	}
}

// fault makes a link bad in one of the ways that links are.
func (s *storm) fault() kv.Hook {
	switch kind := s.chance(); {
	case kind < 0.3:
		return cut
	case kind < 0.6:
		return func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			switch chance := s.chance(); {
			case chance < 0.3:
				return cut(ctx, call, next)
			case chance < 0.6:
				return loseAnswers("")(ctx, call, next)
			}
			return next(ctx)
		}
	case kind < 0.8: // answers are late
		return func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			err := next(ctx)
			time.Sleep(s.pause(0, 4*time.Second))
			return err
		}
	default: // requests are late, as of a process that is paused before it sends
		return func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
			time.Sleep(s.pause(0, 4*time.Second))
			return next(ctx)
		}
	}
}

// strike does something to one of the candidates, or to an observer, and returns when it is over.
func (s *storm) strike(observers []*process) {
	i := int(s.chance() * candidates)
	victim := s.alive[i]
	switch kind := s.chance(); {
	case kind < 0.15:
		victim = observers[i%len(observers)]
		fallthrough
	case kind < 0.6:
		victim.link.inject(s.fault())
		time.Sleep(s.pause(0, 3*ttl))
		victim.link.inject(nil)
	case kind < 0.75: // frozen: nothing is sent, and the monotonic clock stands
		victim.link.inject(cut)
		victim.clock.FreezeMonotonic()
		time.Sleep(s.pause(0, 3*ttl))
		victim.clock.ThawMonotonic()
		victim.link.inject(nil)
	case kind < 0.85:
		victim.clock.Step(s.pause(0, 2*ttl))
	default: // crashed: what it sends from now on never arrives
		victim.link.inject(cut)
		s.alive[i] = s.candidate()
	}
}

// watch checks what an observer is told, and returns the last of it when ctx ends.
func (s *storm) watch(ctx context.Context, p *process, last chan<- election.Leader) {
	var now election.Leader
	for l, err := range p.Observe(ctx) {
		switch {
		case err != nil:
			continue
		case l.Token < now.Token:
			s.t.Errorf("an observer was told of token %d after %d", l.Token, now.Token)
		}
		now = *l
	}
	last <- now
}

func TestI9AtMostOneLeaderThroughStorms(t *testing.T) {
	t.Parallel()
	n := storms
	if testing.Short() {
		n = 5
	}
	for seed := range n {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { runStorm(t, uint64(seed)) })
		})
	}
}

func runStorm(t *testing.T, seed uint64) {
	ctx, cancel := context.WithCancel(t.Context())
	s := &storm{t: t, store: memkv.New(), ctx: ctx, rand: rand.New(rand.NewPCG(seed, 9)),
		terms: map[uint64]*election.Term{}}
	for range candidates {
		s.alive = append(s.alive, s.candidate())
	}
	observers := []*process{
		newProcess(t, polled{s.store}, "polls", s.rate()), newProcess(t, s.store, "watches", s.rate()),
	}
	last := make(chan election.Leader, len(observers))
	watching, stopWatching := context.WithCancel(t.Context())
	defer stopWatching()
	for _, p := range observers {
		go s.watch(watching, p, last)
	}
	go func() {
		for ctx.Err() == nil {
			s.requireOneLeader()
			time.Sleep(20 * time.Millisecond)
		}
	}()
	for began := time.Now(); time.Since(began) < stormy; time.Sleep(s.pause(0, ttl)) {
		s.strike(observers)
	}

	cancel() // all resign
	time.Sleep(3 * ttl)
	final := newProcess(t, s.store, "final", 1)
	bounded, done := context.WithTimeout(t.Context(), bound*11/10)
	defer done()
	term, err := final.Campaign(bounded, []byte("the last"))
	require.NoError(t, err, "the world calms down")
	time.Sleep(seldomPolls)
	stopWatching()
	for range observers {
		l := <-last
		require.Equal(t, term.Token(), l.Token, "the latest state is never missed")
		require.Equal(t, "the last", string(l.Value))
	}
	require.Greater(t, len(s.terms), 5, "a storm that nobody led in shows nothing")
	require.NoError(t, term.Resign(t.Context()))
}

// seldomPolls is when even an observer whose watch tells nothing looks again.
const seldomPolls = 11 * poll
