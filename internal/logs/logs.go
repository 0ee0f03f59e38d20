// Package logs has what a client logs by.
package logs

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Default hands warnings and errors to slog.Default(), as it is when they come.
func Default() *slog.Logger { return slog.New(standard{}) }

// standard is the handler of Default. with is applied to slog.Default's.
type standard struct {
	with func(slog.Handler) slog.Handler
}

func (h standard) handler() slog.Handler {
	current := slog.Default().Handler()
	if h.with != nil {
		current = h.with(current)
	}
	return current
}

func (h standard) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && slog.Default().Handler().Enabled(ctx, level)
}

func (h standard) Handle(ctx context.Context, r slog.Record) error { return h.handler().Handle(ctx, r) }

func (h standard) and(more func(slog.Handler) slog.Handler) slog.Handler {
	before := h.with
	if before == nil {
		return standard{more}
	}
	return standard{func(to slog.Handler) slog.Handler { return more(before(to)) }}
}

func (h standard) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.and(func(to slog.Handler) slog.Handler { return to.WithAttrs(attrs) })
}

func (h standard) WithGroup(name string) slog.Handler {
	return h.and(func(to slog.Handler) slog.Handler { return to.WithGroup(name) })
}

// Every is how often a warning of one cause comes.
const Every = time.Minute

// maxCauses bounds the causes that are remembered. What is forgotten may be told
// again.
const maxCauses = 1000

// Sparing lets a warning or an error through once a minute for each cause: that
// is its message, and what it is about. The next one that comes through says how
// many were left out.
func Sparing(log *slog.Logger) *slog.Logger {
	return slog.New(&sparing{Handler: log.Handler(), memory: &memory{causes: map[string]cause{}}})
}

type sparing struct {
	slog.Handler
	about string // what WithAttrs says
	*memory
}

// memory is shared by the handlers that come of one.
type memory struct {
	mu     sync.Mutex
	causes map[string]cause
}

// cause is when a warning came through last, and how many did not since.
type cause struct {
	at      time.Time
	skipped int
}

func (h *sparing) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return h.Handler.Handle(ctx, r)
	}
	skipped, ok := h.take(r)
	if !ok {
		return nil
	}
	if skipped > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("left_out", skipped))
	}
	return h.Handler.Handle(ctx, r)
}

// take reports whether it is the record's turn, and how many before it were left
// out.
func (s *sparing) take(r slog.Record) (skipped int, ok bool) {
	name := s.about + r.Message + subject(r.Attrs)
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.causes[name]
	if since := r.Time.Sub(last.at); known && since >= 0 && since < Every {
		last.skipped++
		s.causes[name] = last
		return 0, false
	}
	for other := range s.causes {
		if len(s.causes) < maxCauses {
			break
		}
		delete(s.causes, other)
	}
	s.causes[name] = cause{at: r.Time}
	return last.skipped, true
}

// subject is what attributes say a record is about.
func subject(each func(func(slog.Attr) bool)) string {
	var about strings.Builder
	each(func(a slog.Attr) bool {
		switch a.Key {
		case "key", "partition", "pool", "election", "event":
			about.WriteString("\x00" + a.Value.String())
		case "error":
			about.WriteString("\x00" + withoutNumbers(a.Value.String()))
		}
		return true
	})
	return about.String()
}

// withoutNumbers leaves out the words with digits, which differ each time: ids,
// durations, ports.
func withoutNumbers(text string) string {
	words := slices.DeleteFunc(strings.Fields(text), func(word string) bool {
		return strings.ContainsAny(word, "0123456789")
	})
	return strings.Join(words, " ")
}

func (h *sparing) WithAttrs(attrs []slog.Attr) slog.Handler {
	about := subject(func(each func(slog.Attr) bool) {
		for _, a := range attrs {
			each(a)
		}
	})
	return &sparing{Handler: h.Handler.WithAttrs(attrs), about: h.about + about, memory: h.memory}
}

func (h *sparing) WithGroup(name string) slog.Handler {
	return &sparing{Handler: h.Handler.WithGroup(name), about: h.about, memory: h.memory}
}
