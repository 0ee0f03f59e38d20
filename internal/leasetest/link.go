// Package leasetest has what tests of lease and of packages on it share: a way to
// the store that fails as it is told, and an observer that remembers.
package leasetest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// ErrAnswerLost stands for an answer that was lost.
var ErrAnswerLost = errors.New("answer lost")

// Link is one client's way to the store: it counts calls, and fails them as it is
// told. It hides the store's own watch, so its clients poll.
type Link struct {
	kv.Store

	mu    sync.Mutex
	calls map[string]int
	// cut makes every call hang until its context ends.
	cut bool
	// intercept, if set, is called around each call.
	intercept kv.Hook
}

// NewLink makes a link to store.
func NewLink(store kv.Store) *Link {
	l := &Link{calls: map[string]int{}}
	l.Store = kv.Instrument(store, l.Hook)
	return l
}

// MaxWriteDelay implements kv.WriteDelayer.
func (l *Link) MaxWriteDelay() time.Duration { return kv.MaxWriteDelay(l.Store) }

// Hook counts a call, and fails it as it was told.
func (l *Link) Hook(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	l.mu.Lock()
	l.calls[call.Op]++
	cut, intercept := l.cut, l.intercept
	l.mu.Unlock()
	switch {
	case cut:
		<-ctx.Done()
		if call.Op == "Get" {
			return ctx.Err()
		}
		return &kv.UncertainError{Key: call.Key, Err: ctx.Err()}
	case intercept != nil:
		return intercept(ctx, call, next)
	}
	return next(ctx)
}

// SetCut cuts the client off, or lets it back.
func (l *Link) SetCut(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
}

// SetIntercept sets what is called around each call, nil: nothing.
func (l *Link) SetIntercept(hook kv.Hook) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.intercept = hook
}

// Intercept is what SetIntercept has set.
func (l *Link) Intercept() kv.Hook {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.intercept
}

// LoseAnswer lets the next call of op on a key with the prefix reach the store and
// loses its answer.
func (l *Link) LoseAnswer(op, prefix string) {
	done := false
	l.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if done || call.Op != op || !strings.HasPrefix(call.Key, prefix) {
			return next(ctx)
		}
		done = true
		if err := next(ctx); err != nil {
			return err
		}
		return &kv.UncertainError{Key: call.Key, Err: ErrAnswerLost}
	})
}

// Take returns the calls made since it was called last, by operation.
func (l *Link) Take() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	calls := l.calls
	l.calls = map[string]int{}
	return calls
}
