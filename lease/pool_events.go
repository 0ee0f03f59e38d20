package lease

import (
	"context"
	"log/slog"
)

// The types of events that a Pool adds. They are logged as errors.
const (
	// EventFailed: a Pool's handler returned an error or panicked, and will be called again. Key, Token, Err.
	EventFailed EventType = "handler failed"
	// EventStuck: a Pool's handler showed no progress for as long as WithProgressTimeout allows, and its context was ended. Key, Token, Err.
	EventStuck EventType = "handler stuck"
)

// report logs, in a goroutine of its own: whoever reports may hold a lock.
func (p *Pool) report(level slog.Level, message string, args ...any) {
	c := p.client
	if c.log.Enabled(context.Background(), level) {
		c.life.start(func(ctx context.Context) { p.tell(ctx, level, message, args...) })
	}
}

// tell logs at once. It is for whoever holds no lock and may outlive Close.
func (p *Pool) tell(ctx context.Context, level slog.Level, message string, args ...any) {
	p.client.log.With("pool", p.name).Log(ctx, level, "lease: "+message, args...)
}

// failed tells the observer and the log of what a handler did.
func (c *claim) failed(what EventType, l *Lease, err error, args ...any) {
	m := c.member
	m.client.emit(Event{Type: what, Key: l.Key(), Token: l.Token(), Session: l.session.id, Err: err, quiet: true})
	m.report(slog.LevelError, string(what), append([]any{"partition", c.name, "token", l.Token(), "error", err}, args...)...)
}
