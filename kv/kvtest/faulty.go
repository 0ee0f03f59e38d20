package kvtest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// ErrInjected is matched by the errors of lost requests and answers.
var ErrInjected = errors.New("kvtest: injected fault")

// Plan says how often what goes wrong with a Faulty store. The zero Plan:
// nothing, ever. The probabilities are those of an operation, from 0 to 1, and
// the faults exclude each other, so that their sum is at most 1.
type Plan struct {
	// Seed determines the faults: the n-th operation has the same with the same seed.
	Seed uint64
	// LostRequest: the operation never reaches the store.
	LostRequest float64
	// LostAnswer: the store carries it out, and the caller does not learn how it went.
	LostAnswer float64
	// Throttle: the store refuses it, kv.ErrThrottled.
	Throttle float64
	// Delay: it is late by up to MaxDelay, which is 100 ms if it is 0. Nothing else happens to it.
	Delay    float64
	MaxDelay time.Duration
	// Outage tells whether the store is away: then each request is lost. nil: never.
	Outage func() bool
	// Only chooses the operations to which something happens. nil: all.
	Only func(kv.Call) bool
	// Clock is what delays wait on. nil: clock.System.
	Clock clock.Clock
}

// Faulty returns a store that does what store does, except when plan lets it
// fail. Arguments that are refused before anything is sent are refused here,
// too. A write that was lost, or whose answer was, is a *kv.UncertainError, as
// from a driver that gave up. Its Version is 0 when the request was lost: no
// store has given one. A lost request never comes back, so the write delay is
// store's. A watch lists through the faults, whatever store can do.
func Faulty(store kv.Store, plan Plan) kv.Store {
	if plan.MaxDelay == 0 {
		plan.MaxDelay = 100 * time.Millisecond
	}
	if plan.Clock == nil {
		plan.Clock = clock.System
	}
	return &faulty{Store: store, plan: plan, random: rand.New(rand.NewPCG(plan.Seed, 0))}
}

type faulty struct {
	kv.Store // what is wrapped
	plan     Plan

	mu     sync.Mutex
	random *rand.Rand
}

// fault is what happens to one operation.
type fault int

const (
	none fault = iota
	lostRequest
	lostAnswer
	throttled
	delayed
)

// draw decides about one operation. It takes two numbers of the seed's
// sequence, whatever the fault.
func (f *faulty) draw(call kv.Call) (fault, time.Duration) {
	f.mu.Lock()
	p, late := f.random.Float64(), time.Duration(f.random.Float64()*float64(f.plan.MaxDelay))
	f.mu.Unlock()
	if f.plan.Outage != nil && f.plan.Outage() {
		return lostRequest, 0
	}
	if f.plan.Only != nil && !f.plan.Only(call) {
		return none, 0
	}
	for _, candidate := range []struct {
		fault       fault
		probability float64
	}{{lostRequest, f.plan.LostRequest}, {lostAnswer, f.plan.LostAnswer}, {throttled, f.plan.Throttle},
		{delayed, f.plan.Delay}} {
		if p < candidate.probability {
			return candidate.fault, late
		}
		p -= candidate.probability
	}
	return none, 0
}

// do carries out one operation, or does not. sent tells whether it was carried
// out but its answer is lost.
func (f *faulty) do(ctx context.Context, op, key string, operation func() error) (lost, sent bool, err error) {
	if err := ctx.Err(); err != nil {
		return false, false, err
	}
	what, late := f.draw(kv.Call{Op: op, Key: key})
	switch what {
	case lostRequest:
		return true, false, nil
	case throttled:
		return false, false, fmt.Errorf("kvtest: %s %q: %w: %w", op, key, kv.ErrThrottled, ErrInjected)
	case delayed:
		if err := clock.Sleep(ctx, f.plan.Clock, late); err != nil {
			return false, false, err
		}
	}
	err = operation()
	return what == lostAnswer && sentErr(err), true, err
}

// sentErr reports whether err is an answer of a store, so that it can get lost.
func sentErr(err error) bool {
	return err == nil || errors.Is(err, kv.ErrKeyExists) || errors.Is(err, kv.ErrKeyModified) ||
		errors.Is(err, kv.ErrKeyNotFound)
}

// read carries out a read.
func (f *faulty) read(ctx context.Context, op, key string, operation func() error) error {
	lost, _, err := f.do(ctx, op, key, operation)
	if lost {
		return fmt.Errorf("kvtest: %s %q: no answer: %w", op, key, ErrInjected)
	}
	return err
}

// write carries out a write. version is what the store gave, once operation has run.
func (f *faulty) write(ctx context.Context, op, key string, version *uint64, operation func() error) error {
	lost, sent, err := f.do(ctx, op, key, operation)
	if !lost {
		return err
	}
	uncertain := &kv.UncertainError{Key: key, Err: fmt.Errorf("%s: no answer: %w", op, ErrInjected)}
	if sent {
		uncertain.Version = *version
	}
	return uncertain
}

// Unwrap implements kv.Wrapper.
func (f *faulty) Unwrap() kv.Store { return f.Store }

// WatchPrefix implements kv.Watcher, so that a watch of the wrapped store does
// not go past the faults.
func (f *faulty) WatchPrefix(ctx context.Context, prefix string, settings kv.WatchSettings) iter.Seq2[kv.Event, error] {
	return kv.WatchByListing(ctx, f, prefix, settings)
}

// Put implements kv.Store.
func (f *faulty) Put(ctx context.Context, key string, options ...kv.WriteOption) error {
	if _, err := kv.PutSettings(key, options); err != nil {
		return err
	}
	return f.write(ctx, "Put", key, new(uint64), func() error { return f.Store.Put(ctx, key, options...) })
}

// AtomicPut implements kv.Store.
func (f *faulty) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	if _, err := kv.AtomicPutSettings(key, options); err != nil {
		return nil, err
	}
	var pair *kv.KVPair
	var version uint64
	err := f.write(ctx, "AtomicPut", key, &version, func() (err error) {
		if pair, err = f.Store.AtomicPut(ctx, key, options...); err == nil {
			version = pair.Version
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return pair, nil
}

// Delete implements kv.Store.
func (f *faulty) Delete(ctx context.Context, key string, options ...kv.DeleteOption) error {
	if _, err := kv.CheckDelete(key, options); err != nil {
		return err
	}
	return f.write(ctx, "Delete", key, new(uint64), func() error { return f.Store.Delete(ctx, key, options...) })
}

// AtomicDelete implements kv.Store.
func (f *faulty) AtomicDelete(ctx context.Context, key string, previous *kv.KVPair, options ...kv.DeleteOption) error {
	if _, err := kv.CheckAtomicDelete(key, previous, options); err != nil {
		return err
	}
	return f.write(ctx, "AtomicDelete", key, new(uint64),
		func() error { return f.Store.AtomicDelete(ctx, key, previous, options...) })
}

// Get implements kv.Store.
func (f *faulty) Get(ctx context.Context, key string, options ...kv.ReadOption) (pair *kv.KVPair, err error) {
	if _, err := kv.GetSettings(key, options); err != nil {
		return nil, err
	}
	err = f.read(ctx, "Get", key, func() (err error) {
		pair, err = f.Store.Get(ctx, key, options...)
		return err
	})
	return unless(err, pair)
}

// Exists implements kv.Store.
func (f *faulty) Exists(ctx context.Context, key string, options ...kv.ReadOption) (exists bool, err error) {
	if _, err := kv.GetSettings(key, options); err != nil {
		return false, err
	}
	err = f.read(ctx, "Exists", key, func() (err error) {
		exists, err = f.Store.Exists(ctx, key, options...)
		return err
	})
	return unless(err, exists)
}

// List implements kv.Store.
func (f *faulty) List(ctx context.Context, prefix string, options ...kv.ReadOption) (pairs []*kv.KVPair, err error) {
	if _, err := kv.ListSettings(prefix, options); err != nil {
		return nil, err
	}
	err = f.read(ctx, "List", prefix, func() (err error) {
		pairs, err = f.Store.List(ctx, prefix, options...)
		return err
	})
	return unless(err, pairs)
}

// ListPage implements kv.Store.
func (f *faulty) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (page *kv.Page, err error) {
	if _, err := kv.ListSettings(prefix, options); err != nil {
		return nil, err
	}
	err = f.read(ctx, "ListPage", prefix, func() (err error) {
		page, err = f.Store.ListPage(ctx, prefix, options...)
		return err
	})
	return unless(err, page)
}

// unless returns result, or nothing beside an error.
func unless[T any](err error, result T) (T, error) {
	if err != nil {
		var zero T
		return zero, err
	}
	return result, nil
}
