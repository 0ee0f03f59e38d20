package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/dynalock/dynalock/lease"
)

// beat is a heartbeat as it was seen first, at seen by this process's clock.
type beat struct {
	version uint64
	at      time.Time
}

// watcher judges sessions by watching them, as one who waits for their locks does,
// and ends none. It compares no clocks of machines.
type watcher struct{ beats map[string]beat }

// note notes what a listing showed of a session, and returns for how long no
// heartbeat of it was seen.
func (w *watcher) note(m *lease.Member, now time.Time) (silent time.Duration) {
	last, ok := w.beats[m.Session]
	if !ok || m.Version > last.version {
		last = beat{m.Version, now}
		w.beats[m.Session] = last
	}
	return now.Sub(last.at)
}

// judge is what silence means. Heartbeats come every third of the TTL. Whoever waits
// for a lock takes it when its holder was silent for a TTL and a sixteenth.
func judge(silent, ttl time.Duration) string {
	switch {
	case silent >= ttl+ttl/16:
		return "expired"
	case silent >= ttl*2/3:
		return "overdue"
	}
	return "live"
}

// listAgain lists again and again, until it is interrupted.
func (c *cli) listAgain(ctx context.Context, prefix string, every time.Duration) error {
	if every < 100*time.Millisecond {
		return usage(fmt.Errorf("ls: --watch=%v: want 100ms or more", every))
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	w := &watcher{beats: map[string]beat{}}
	for ctx.Err() == nil {
		if err = c.listOnce(ctx, s, prefix, w); err != nil {
			break
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		err = nil // interrupted, as it is meant to end
	}
	return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
}

// clearScreen moves to the upper left, and clears what is below.
const clearScreen = "\x1b[H\x1b[J"

// listOnce is one listing of many. It says what goes wrong, and goes on.
func (c *cli) listOnce(ctx context.Context, s *opened, prefix string, w *watcher) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if f, ok := c.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		_, _ = fmt.Fprint(c.out, clearScreen)
	}
	err := c.ls(ctx, s, prefix, w)
	if status := statusOf(err); status == statusUnavailable || status == statusNotAcquired {
		_, _ = fmt.Fprintln(c.err, "dynalock: "+err.Error())
		return nil
	}
	return err
}
