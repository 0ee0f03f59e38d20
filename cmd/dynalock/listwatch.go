package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
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

// observe notes what a listing showed, and returns for how long no heartbeat of each
// session was seen. It forgets sessions that are not listed.
func (w *watcher) observe(listed map[string]*lease.Member, now time.Time) (silent map[string]time.Duration) {
	beats := make(map[string]beat, len(listed))
	silent = make(map[string]time.Duration, len(listed))
	for id, m := range listed {
		last, ok := w.beats[id]
		if !ok || m.Version > last.version {
			last = beat{m.Version, now}
		}
		beats[id], silent[id] = last, now.Sub(last.at)
	}
	w.beats = beats
	return silent
}

// judge is what silence means of a holder.
func judge(silent time.Duration, m *lease.Member) string {
	switch {
	case silent >= m.DeadAfter():
		return "expired"
	case silent >= m.OverdueAfter():
		return "overdue"
	}
	return "live"
}

// minWatch is how often what is held may be listed.
const minWatch = 100 * time.Millisecond

// listAgain lists again and again, until it is interrupted.
func (c *cli) listAgain(ctx context.Context, prefix string, every time.Duration) error {
	if every < minWatch {
		return usage(fmt.Errorf("ls: --watch=%v: want %v or more", every, minWatch))
	}
	return c.untilStopped(ctx, func(ctx context.Context, s *opened) error {
		w := &watcher{}
		for ctx.Err() == nil {
			if err := c.listOnce(ctx, s, prefix, w); err != nil && ctx.Err() == nil {
				return err
			}
			select {
			case <-time.After(every):
			case <-ctx.Done():
			}
		}
		return nil // interrupted, as it is meant to end
	})
}

// clearScreen moves to the upper left, and clears what is below.
const clearScreen = "\x1b[H\x1b[J"

// listOnce is one listing of many, shown when it is whole. It says what goes wrong,
// and goes on.
func (c *cli) listOnce(ctx context.Context, s *opened, prefix string, w *watcher) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var text bytes.Buffer
	page := *c
	page.out = &text
	err := c.unanswered(page.ls(ctx, s, prefix, w))
	if statusOf(err) == statusUnavailable {
		_, _ = fmt.Fprintln(c.err, "dynalock: "+err.Error())
		return nil
	}
	if f, ok := c.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		_, _ = fmt.Fprint(c.out, clearScreen)
	}
	_, wrote := text.WriteTo(c.out)
	return errors.Join(err, wrote)
}
