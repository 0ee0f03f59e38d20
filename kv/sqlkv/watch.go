package sqlkv

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// watchInterval is how often a watch asks whether the file has changed, without WithWatchInterval.
const watchInterval = 100 * time.Millisecond

// WatchPrefix implements kv.Watcher. Every interval it asks SQLite for the file's
// data_version, which reads no table. It lists when some process has changed that, or
// when a pair has expired.
func (s *Store) WatchPrefix(ctx context.Context, prefix string, settings kv.WatchSettings) iter.Seq2[kv.Event, error] {
	interval := settings.Interval
	if interval == 0 {
		interval = watchInterval
	}
	return func(yield func(kv.Event, error) bool) {
		w := &watch{store: s, prefix: prefix, interval: interval, versions: make(map[*conn]int64)}
		kv.WatchListings(ctx, w.list, w.wait)(yield)
	}
}

// watch is one iteration of a watch.
type watch struct {
	store    *Store
	prefix   string
	interval time.Duration
	// seen is the data_version that each reading connection last showed. Those of
	// different connections do not compare. A change makes the next look through every
	// connection differ from the look before. The first look through a connection counts
	// as a difference. Readers do not write, so all writes are others'.
	versions map[*conn]int64
	// listed: the last listing succeeded. expires is when the first of its pairs goes,
	// zero: never.
	listed  bool
	expires time.Time
}

// list returns the live pairs.
func (w *watch) list(ctx context.Context) ([]*kv.KVPair, error) {
	pairs, err := w.store.List(ctx, w.prefix)
	w.listed, w.expires = err == nil, time.Time{}
	for _, pair := range pairs {
		if !pair.Expires.IsZero() && (w.expires.IsZero() || pair.Expires.Before(w.expires)) {
			w.expires = pair.Expires
		}
	}
	return pairs, err
}

// wait returns when the file has changed or a pair has expired. After a listing that
// failed it returns after the interval.
func (w *watch) wait(ctx context.Context) error {
	for {
		// Real time, as in retryBusy: a clock of a test may stand still.
		if err := clock.Sleep(ctx, clock.System, w.interval); err != nil {
			return err
		}
		changed, err := w.changed(ctx)
		if err != nil || changed || !w.listed {
			return err
		}
		if !w.expires.IsZero() && !w.store.clock.Now().Wall.Before(w.expires) {
			return nil
		}
	}
}

// changed reports whether the file may have changed since it was last called.
func (w *watch) changed(ctx context.Context) (bool, error) {
	changed := false
	err := w.store.read(ctx, func(ctx context.Context, conn *conn) error {
		var version int64
		if err := conn.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version); err != nil {
			return fmt.Errorf("sqlkv: watching %q: %w", w.prefix, err)
		}
		before, known := w.versions[conn]
		if !known && len(w.versions) >= readConns {
			clear(w.versions) // connections broke and were replaced
		}
		w.versions[conn] = version
		changed = !known || before != version
		return nil
	})
	return changed, err
}
