package pool

import (
	"context"
	"log/slog"

	"github.com/dynalock/dynalock/lease"
)

// The types of events that a Pool adds to those of its client, whose observer
// gets them. They are logged as errors.
const (
	// EventFailed: a Handler returned an error or panicked, and will be called
	// again, unless the partition has failed. Key, Token, Session, Err.
	EventFailed lease.EventType = "handler failed"
	// EventStuck: a Handler showed no progress for as long as WithProgressTimeout
	// allows, and its context was ended. Key, Token, Session, Err.
	EventStuck lease.EventType = "handler stuck"
	// EventPartitionFailed: a partition was given up after as many attempts as
	// WithMaxAttempts allows. Key, Token, Session, Err: why the last one failed.
	EventPartitionFailed lease.EventType = "partition failed"
)

// report logs, in a goroutine of its own: whoever reports may hold a lock.
func (m *member) report(level slog.Level, message string, args ...any) {
	if m.log.Enabled(context.Background(), level) {
		m.wait.Go(func() { m.logNow(m.values, level, message, args...) })
	}
}

// tell logs at once. It is for whoever holds no lock.
func (m *member) logNow(ctx context.Context, level slog.Level, message string, args ...any) {
	m.log.With("pool", m.name).Log(ctx, level, "pool: "+message, args...)
}

// failed tells the observer and the log of what a handler did.
func (c *claim) failed(what lease.EventType, l *lease.Lease, err error, args ...any) {
	m := c.member
	m.parts.Emit(lease.Event{Type: what, Key: l.Key(), Token: l.Token(), Session: m.client.Session(), Err: err})
	m.report(slog.LevelError, string(what),
		append([]any{"partition", c.name, "token", l.Token(), "error", err}, args...)...)
}
