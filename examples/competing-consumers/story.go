package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dynalock/dynalock/examples/internal/terminal"
	"github.com/dynalock/dynalock/internal/clock"
)

const (
	// longestShown is how much of an entry's name a line shows.
	longestShown = 32
	// barWidth is that of the bar on a terminal.
	barWidth = 30
	// silence is for how long the story says nothing where there is no terminal,
	// while there is something to say.
	silence = 5 * time.Second
	// timeWidth is how much of a line its time takes up.
	timeWidth = 8
)

// story is a report for people. It has a line for what happens, and on a
// terminal a line for each worker. It is not safe for concurrent use.
type story struct {
	screen *terminal.Screen
	// now is how long the run has lasted.
	now     func() time.Duration
	ttl     time.Duration
	private bool // no other run can be on the store
	entries int
	// doers are the entries that are done, and who did them.
	doers map[string]string
	// before is how many were done before the run began.
	before  int
	workers map[string]*teller
	deaths  []death
	spoke   time.Duration // when the last line was said
	stood   int           // how many entries were done then
}

// teller is a worker of this run, as the story knows it.
type teller struct {
	doing string        // its entry, "" for none
	state string        // what it does without an entry
	died  time.Duration // when it died, if it did
	// tookOver and waitedFor: it was said that it took over from somebody, and
	// that all else than what it had locked is done. ended: others take over what
	// it had locked.
	tookOver, waitedFor, ended bool
}

// beginStory begins the story of a run over the entries of dir, of which right
// have a result already.
func beginStory(s settings, dir string, entries []string, right map[string]Result) *story {
	began := clock.System.Now()
	tale := newStory(terminal.Stdout(), s, len(entries), right)
	tale.now = func() time.Duration { return clock.System.Now().MonotonicSince(began) }
	tale.begin(s, dir)
	return tale
}

func newStory(screen *terminal.Screen, s settings, entries int, right map[string]Result) *story {
	tale := &story{
		screen: screen, ttl: s.ttl, private: s.store == "sqlite" || s.store == "memory",
		entries: entries, before: len(right), stood: len(right),
		doers: make(map[string]string), workers: make(map[string]*teller),
	}
	for entry, result := range right {
		tale.doers[entry] = result.Worker
	}
	return tale
}

// begin tells what the run is about.
func (s *story) begin(of settings, dir string) {
	s.screen.Line(fmt.Sprintf("%s in %s, %s. Each file is locked, hashed and unlocked.",
		count(s.entries, "file"), filepath.Base(dir), count(of.workers, "worker")), 0)
	if s.before > 0 && s.before < s.entries {
		s.screen.Line(fmt.Sprintf("%s done before this run.", count(s.before, "file")), 0)
	}
	if of.crash {
		s.screen.Line(fmt.Sprintf("%s will be killed in the middle of one: its locks end %s later (-ttl).",
			s.short(of.names()[0]), s.ttl), 0)
	}
	s.screen.Line("", 0)
}

// event tells of what a worker of this run has reported.
func (s *story) event(e Event) {
	t := s.workers[e.Worker]
	if t == nil {
		t = &teller{}
		s.workers[e.Worker] = t
	}
	switch e.Event {
	case workerStarted:
		t.state = "waiting"
	case entryAcquired:
		t.doing = e.Entry
		s.tookOver(e, t)
	case entryReleased:
		t.doing = ""
	case entryLost:
		t.doing = ""
		s.say("%s has lost the lock of %s: %s", s.short(e.Worker), brief(e.Entry), oneLine(e.Error))
	case entryDone:
		s.doers[e.Entry] = e.Worker
	case entryFenced:
		s.say("%s comes too late with %s: the lock's next holder has done it.", s.short(e.Worker), brief(e.Entry))
	case entryFailed:
		s.say("%s cannot do %s: %s", s.short(e.Worker), brief(e.Entry), oneLine(e.Error))
	case workerFinished:
		t.doing, t.state = "", "finished"
		if e.Error != "" {
			s.say("%s gives up: %s", s.short(e.Worker), oneLine(e.Error))
		}
	}
}

// tookOver tells that a dead worker's entry has another one, once for each that
// takes some.
func (s *story) tookOver(e Event, t *teller) {
	for _, d := range s.deaths {
		if d.Worker == e.Worker || !slices.Contains(d.Locked, e.Entry) {
			continue
		}
		if dead := s.workers[d.Worker]; dead != nil {
			dead.ended = true
		}
		if t.tookOver {
			continue
		}
		t.tookOver = true
		s.say("%s takes over from %s, first %s", s.short(e.Worker), s.short(d.Worker), brief(e.Entry))
	}
}

// died tells of the death of a worker of this run, and of what it had locked.
func (s *story) died(d death, e Event) {
	t := s.workers[d.Worker]
	s.deaths = append(s.deaths, d)
	how := "is killed"
	if !d.Killed {
		how = "has died (" + oneLine(e.Error) + ")"
	}
	if t.doing != "" {
		how += " in the middle of " + brief(t.doing)
	}
	t.died, t.doing = s.now(), ""
	s.say("%s %s, with %s locked.", s.short(d.Worker), how, count(len(d.Locked), "file"))
}

// see takes what the store says, of the work of other runs, too.
func (s *story) see(v view) {
	for entry, result := range v.results {
		if s.doers[entry] == "" {
			s.doers[entry] = result.Worker
		}
	}
	for _, d := range v.deaths {
		if !slices.ContainsFunc(s.deaths, func(known death) bool { return known.Worker == d.Worker }) {
			s.deaths = append(s.deaths, d)
			s.say("%s, of another run, has died with %s locked.", s.short(d.Worker), count(len(d.Locked), "file"))
		}
	}
}

// tick brings what is shown up to date.
func (s *story) tick() {
	quiet := !s.screen.IsTerminal() && s.now()-s.spoke >= silence
	for _, d := range s.deaths {
		t := s.workers[d.Worker]
		left := s.locked(d)
		if t == nil || left == 0 || left != s.entries-len(s.doers) || t.waitedFor && !quiet {
			continue
		}
		t.waitedFor, quiet = true, false
		s.say("Only what %s had locked is left, %s: wait, %s.", s.short(d.Worker), count(left, "file"), s.in(t))
	}
	if quiet && s.stood != len(s.doers) {
		s.say("%d of %d files are done.", len(s.doers), s.entries)
	}
	s.screen.Draw(s.block())
}

// locked is how many entries a dead worker keeps the others from.
func (s *story) locked(d death) (n int) {
	for _, entry := range d.Locked {
		if s.doers[entry] == "" {
			n++
		}
	}
	return n
}

// in says when a dead worker's locks are free.
func (s *story) in(t *teller) string {
	left := t.died + s.ttl - s.now()
	switch {
	case t.ended:
		return "others take over"
	case left > 0:
		return fmt.Sprintf("about %.1fs more", left.Seconds())
	}
	return "any moment now"
}

// block is what a terminal shows below the lines.
func (s *story) block() []string {
	done := barWidth * len(s.doers) / s.entries
	block := []string{
		"",
		fmt.Sprintf("  %s%s  %d of %d files", strings.Repeat("█", done), strings.Repeat("░", barWidth-done),
			len(s.doers), s.entries),
	}
	did := s.did()
	width := longest(did, s.short)
	for _, name := range slices.Sorted(maps.Keys(did)) {
		block = append(block, fmt.Sprintf("  %-*s %9s  %s", width, s.short(name), count(did[name], "file"), s.doing(name)))
	}
	return block
}

// did is how many entries each worker has done, of this run and of others.
func (s *story) did() map[string]int {
	did := make(map[string]int)
	for name := range s.workers {
		did[name] = 0
	}
	for _, name := range s.doers {
		did[name]++
	}
	return did
}

// doing says what a worker is at.
func (s *story) doing(name string) string {
	t := s.workers[name]
	for _, d := range s.deaths {
		left := s.locked(d)
		switch {
		case d.Worker != name:
		case left == 0:
			return d.how()
		case t == nil:
			return fmt.Sprintf("%s, had %s locked", d.how(), count(left, "file"))
		default:
			return fmt.Sprintf("%s, had %s locked: %s", d.how(), count(left, "file"), s.in(t))
		}
	}
	switch {
	case t == nil:
		return "in another run"
	case t.doing != "":
		return terminal.Tail(t.doing, longestShown)
	}
	return t.state
}

// summary tells what came of the run.
func (s *story) summary(sum Summary) {
	s.screen.Draw(nil)
	if s.spoke > 0 {
		s.screen.Line("", 0)
	}
	width := longest(sum.Workers, s.short)
	for _, name := range slices.Sorted(maps.Keys(sum.Workers)) {
		line := fmt.Sprintf("  %-*s %9s", width, s.short(name), count(sum.Workers[name], "file"))
		for _, d := range sum.deaths {
			if d.Worker == name {
				line += "  " + d.how()
			}
		}
		s.screen.Line(line, 0)
	}
	s.screen.Line("", 0)
	s.screen.Line(sum.sentence(s.before), 0)
	requests := 0
	for _, n := range sum.Requests {
		requests += n
	}
	s.screen.Line(fmt.Sprintf("This took %.1fs and %s to the store.", sum.Seconds, count(requests, "request")), 0)
}

// say shows a line with the time.
func (s *story) say(format string, args ...any) {
	s.spoke, s.stood = s.now(), len(s.doers)
	s.screen.Line(fmt.Sprintf("%5.1fs  ", s.spoke.Seconds())+fmt.Sprintf(format, args...), timeWidth)
}

// short is a worker's name. Where all are of this run its process is left out.
func (s *story) short(name string) string {
	if s.private {
		name, _, _ = strings.Cut(name, "@")
	}
	return name
}

// brief is an entry's name in a line.
func brief(entry string) string { return terminal.Tail(entry, longestShown) }

// longest is the width of the longest name.
func longest(names map[string]int, short func(string) string) (width int) {
	for name := range names {
		width = max(width, len(short(name)))
	}
	return width
}
