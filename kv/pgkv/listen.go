package pgkv

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// Listen waits for notifications on a connection of its own, which database/sql
// cannot do. It executes LISTEN channel and calls heard with an empty payload
// once that is done, then with the payload of each notification. It returns when
// ctx ends or the connection breaks, and closes the connection. It calls heard on
// its own goroutine, which that does not hold up. channel is a plain identifier.
//
// examples/internal/stores has the fifteen lines for pgx. Behind a pooler in
// transaction mode the connection has to go to the server itself.
type Listen func(ctx context.Context, channel string, heard func(payload string)) error

// listenInterval is how often a watch of a ListeningStore lists all the same:
// only deletes are notified.
const listenInterval = time.Second

// ListeningStore is a Store whose watches hear of deleted keys at once, through
// LISTEN and NOTIFY. A lease that is released deletes its key, so waiting
// acquires get it within milliseconds. NewListening makes one.
//
//   - Its AtomicDelete notifies. A Store that New made does not: use one kind in
//     all processes.
//   - Puts, heartbeats among them, do not notify, as PostgreSQL commits
//     notifying transactions one after the other. A watch lists its prefix once a
//     second for them, whatever WithWatchInterval says. That goes for a released
//     lease that keeps its value, too.
//   - While watches go on, it has one connection to the server more. Where that
//     breaks, it is opened again after pauses of 100 ms to 30 s.
type ListeningStore struct {
	*Store
	listen Listen
	hub    hub
}

// hub has the watches that go on, and the connection that listens for them.
type hub struct {
	mu      sync.Mutex
	watches map[*watch]struct{}
	stop    context.CancelFunc
	stopped chan struct{}
}

// watch is told by a word in heard when a key with its prefix was deleted.
type watch struct {
	prefix string
	heard  chan struct{}
}

var (
	_ kv.Store        = (*ListeningStore)(nil)
	_ kv.WriteDelayer = (*ListeningStore)(nil)
	_ kv.Watcher      = (*ListeningStore)(nil)
)

// NewListening returns a Store that listens. listen is called when the first
// watch begins, and its ctx ends with the last one. All else is as with New.
func NewListening(db *sql.DB, listen Listen, options ...Option) (*ListeningStore, error) {
	if listen == nil {
		return nil, fmt.Errorf("pgkv: NewListening: listen is nil: %w", kv.ErrInvalidOption)
	}
	store, err := New(db, options...)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(store.table + "\x00" + store.namespace))
	store.channel = "dynalock_" + hex.EncodeToString(sum[:8])
	return &ListeningStore{Store: store, listen: listen, hub: hub{watches: map[*watch]struct{}{}}}, nil
}

// WatchPrefix implements kv.Watcher. It costs a listing when it begins, after
// each notification, and once a second.
func (s *ListeningStore) WatchPrefix(ctx context.Context, prefix string,
	settings kv.WatchSettings) iter.Seq2[kv.Event, error] {
	interval := max(settings.Interval, listenInterval)
	return func(yield func(kv.Event, error) bool) {
		w := &watch{prefix: prefix, heard: make(chan struct{}, 1)}
		s.hub.add(w, s.hear)
		defer s.hub.remove(w)
		list := func(ctx context.Context) ([]*kv.KVPair, error) { return s.List(ctx, prefix) }
		wait := func(ctx context.Context) error { return s.wait(ctx, w, interval) }
		kv.WatchListings(ctx, list, wait)(yield)
	}
}

// wait waits until the watch hears something, or for the interval.
func (s *ListeningStore) wait(ctx context.Context, w *watch, interval time.Duration) error {
	t := s.clock.NewTimer(interval)
	defer t.Stop()
	select {
	case <-w.heard:
	case <-t.C():
	case <-s.closing:
		return kv.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// add adds a watch. The first one starts hear, once that of watches before has
// ended.
func (h *hub) add(w *watch, hear func(context.Context)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watches[w] = struct{}{}
	if len(h.watches) > 1 {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	previous, stopped := h.stopped, make(chan struct{})
	h.stop, h.stopped = stop, stopped
	go func() {
		defer close(stopped)
		if previous != nil {
			<-previous
		}
		hear(ctx)
	}()
}

// remove removes a watch. The last one ends hear, and waits for that.
func (h *hub) remove(w *watch) {
	h.mu.Lock()
	delete(h.watches, w)
	last, stopped := len(h.watches) == 0, h.stopped
	if last {
		h.stop()
	}
	h.mu.Unlock()
	if last {
		<-stopped
	}
}

// hear keeps listening until ctx ends.
func (s *ListeningStore) hear(ctx context.Context) {
	pauses := clock.Jitter(s.clock, backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(100*time.Millisecond), backoff.WithMaxInterval(30*time.Second),
		backoff.WithMaxElapsedTime(0)))
	for ctx.Err() == nil {
		// What is missed while it does not listen shows when it does again.
		_ = s.listen(ctx, s.channel, func(payload string) {
			pauses.Reset()
			s.hub.notify(payload)
		})
		if clock.Sleep(ctx, s.clock, pauses.NextBackOff()) != nil {
			return
		}
	}
}

// tell wakes the watches that a payload concerns: all of them if it is empty.
func (h *hub) notify(payload string) {
	key, err := hex.DecodeString(payload)
	if err != nil {
		return // not ours
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watches {
		if payload != "" && !strings.HasPrefix(string(key), w.prefix) {
			continue
		}
		select {
		case w.heard <- struct{}{}:
		default:
		}
	}
}
