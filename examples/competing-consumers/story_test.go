package main

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/examples/internal/terminal"
)

// teleprinter is a terminal of 80 columns that knows what a screen may send, and
// refuses anything else.
type teleprinter struct {
	lines       [][]rune
	row, column int
}

var escape = regexp.MustCompile("^\x1b\\[(\\d*)([AJK])")

// Write implements io.Writer.
func (p *teleprinter) Write(text []byte) (int, error) {
	for rest := string(text); rest != ""; {
		for p.row >= len(p.lines) {
			p.lines = append(p.lines, nil)
		}
		if found := escape.FindStringSubmatch(rest); found != nil {
			rest = rest[len(found[0]):]
			if err := p.obey(found[1], found[2]); err != nil {
				return 0, err
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(rest)
		rest = rest[size:]
		switch {
		case r == '\r':
			p.column = 0
		case r == '\n':
			p.row, p.column = p.row+1, 0
		case r < ' ' || p.column >= 80:
			return 0, fmt.Errorf("%q at column %d", r, p.column)
		default:
			p.lines[p.row] = append(p.lines[p.row][:p.column],
				append([]rune{r}, p.lines[p.row][min(p.column+1, len(p.lines[p.row])):]...)...)
			p.column++
		}
	}
	return len(text), nil
}

func (p *teleprinter) obey(number, command string) error {
	switch command {
	case "A":
		n, err := strconv.Atoi(number)
		if err != nil || n > p.row {
			return errors.Join(err, fmt.Errorf("up by %s from row %d", number, p.row))
		}
		p.row -= n
	case "K":
		p.lines[p.row] = p.lines[p.row][:min(p.column, len(p.lines[p.row]))]
	case "J":
		p.lines = p.lines[:p.row]
	}
	return nil
}

// String is what the terminal shows.
func (p *teleprinter) String() string {
	var text strings.Builder
	for _, line := range p.lines {
		text.WriteString(string(line) + "\n")
	}
	return text.String()
}

// script is a run on 20 files whose first worker is killed, told by s. look is
// called once the others wait.
func script(s settings, screen *terminal.Screen, look func()) {
	tale := newStory(screen, s, 20, nil)
	var now time.Duration
	tale.now = func() time.Duration { return now }
	one, two := "worker-1@7", "worker-2@7"
	tale.begin(s, "/home/me/mails")
	tale.event(Event{Event: workerStarted, Worker: one})
	tale.event(Event{Event: entryAcquired, Worker: one, Entry: "0"})
	tale.event(Event{Event: entryDone, Worker: one, Entry: "0"})
	tale.event(Event{Event: entryReleased, Worker: one, Entry: "0"})
	tale.event(Event{Event: entryAcquired, Worker: one, Entry: "1"})
	tale.tick()
	now = 300 * time.Millisecond
	tale.event(Event{Event: workerStarted, Worker: two})
	tale.event(Event{Event: workerKilled, Worker: one})
	tale.died(death{Worker: one, Killed: true, Locked: []string{"1", "2"}}, Event{})
	for i := 3; i < 20; i++ {
		tale.event(Event{Event: entryAcquired, Worker: two, Entry: fmt.Sprint(i)})
		if i == 19 {
			now = 6 * time.Second
			tale.tick()
		}
		tale.event(Event{Event: entryDone, Worker: two, Entry: fmt.Sprint(i)})
		tale.event(Event{Event: entryReleased, Worker: two, Entry: fmt.Sprint(i)})
	}
	now = 7 * time.Second
	tale.tick()
	now = 12300 * time.Millisecond
	tale.tick()
	look()
	now = 15500 * time.Millisecond
	for _, entry := range []string{"1", "2"} {
		tale.event(Event{Event: entryAcquired, Worker: two, Entry: entry, Takeover: true})
		tale.event(Event{Event: entryDone, Worker: two, Entry: entry})
		tale.tick()
		tale.event(Event{Event: entryReleased, Worker: two, Entry: entry})
	}
	tale.event(Event{Event: workerFinished, Worker: two})
	tale.summary(Summary{
		Complete: true, Entries: 20, Done: 20, Workers: map[string]int{one: 1, two: 19}, Seconds: 15.6,
		Requests: map[string]int{"Get": 60, "AtomicPut": 41}, takenOver: 2,
		deaths: []death{{Worker: one, Killed: true, Locked: []string{"1", "2"}}},
	})
}

// crash are the settings of script.
var crash = settings{workers: 2, ttl: 15 * time.Second, crash: true, store: "sqlite"}

func TestTheStoryOfAKilledWorkerInPlainLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	script(crash, terminal.New(&out, nil), func() {})
	require.Equal(t, `20 files in mails, 2 workers. Each file is locked, hashed and unlocked.
worker-1 will be killed in the middle of one: its locks end 15s later (-ttl).

  0.3s  worker-1 is killed in the middle of 1, with 2 files locked.
  6.0s  17 of 20 files are done.
  7.0s  Only what worker-1 had locked is left, 2 files: wait, about 8.3s more.
 12.3s  Only what worker-1 had locked is left, 2 files: wait, about 3.0s more.
 15.5s  worker-2 takes over from worker-1, first 1

  worker-1    1 file  killed
  worker-2  19 files

20 files hashed exactly once by 2 workers; one was killed, 2 of its files were taken over.
This took 15.6s and 101 requests to the store.
`, out.String())
}

func TestTheStoryOfAKilledWorkerOnATerminal(t *testing.T) {
	t.Parallel()
	var out teleprinter
	script(crash, terminal.New(&out, func() (int, int) { return 80, 24 }), func() {
		require.Equal(t, `20 files in mails, 2 workers. Each file is locked, hashed and unlocked.
worker-1 will be killed in the middle of one: its locks end 15s later (-ttl).

  0.3s  worker-1 is killed in the middle of 1, with 2 files locked.
  7.0s  Only what worker-1 had locked is left, 2 files: wait, about 8.3s more.

  ███████████████████████████░░░  18 of 20 files
  worker-1    1 file  killed, had 2 files locked: about 3.0s more
  worker-2  17 files  waiting
`, out.String())
	})
	require.Equal(t, `20 files in mails, 2 workers. Each file is locked, hashed and unlocked.
worker-1 will be killed in the middle of one: its locks end 15s later (-ttl).

  0.3s  worker-1 is killed in the middle of 1, with 2 files locked.
  7.0s  Only what worker-1 had locked is left, 2 files: wait, about 8.3s more.
 15.5s  worker-2 takes over from worker-1, first 1

  worker-1    1 file  killed
  worker-2  19 files

20 files hashed exactly once by 2 workers; one was killed, 2 of its files were
taken over.
This took 15.6s and 101 requests to the store.
`, out.String())
}

// Nothing is wider than the terminal, whatever its size and the names, or
// pushes the lines above the block out of its reach.
func TestTheStoryFitsOnTheTerminal(t *testing.T) {
	t.Parallel()
	var out teleprinter
	s := crash
	s.workers = 40
	tale := newStory(terminal.New(&out, func() (int, int) { return 50, 10 }), s, 100, nil)
	tale.now = func() time.Duration { return time.Second }
	tale.begin(s, "/"+strings.Repeat("ü", 100))
	for i := range s.workers {
		name := fmt.Sprintf("worker-%d@%d", i, 1<<20)
		tale.event(Event{Event: workerStarted, Worker: name})
		tale.event(Event{Event: entryAcquired, Worker: name, Entry: strings.Repeat("ä/", 100)})
	}
	tale.event(Event{Event: entryFailed, Worker: "worker-1@" + fmt.Sprint(1<<20), Entry: "x",
		Error: strings.Repeat("no such file ", 20)})
	tale.tick()
	require.Contains(t, out.String(), "and 34 more")
	block := strings.Split(out.String(), "\n")
	for _, line := range block {
		if utf8.RuneCountInString(line) >= 50 {
			require.Contains(t, line, "üüü", "one word may be too long")
		}
	}
}

func TestAnotherRunsWorkAndDeadAreTold(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	s := settings{workers: 1, ttl: 15 * time.Second, store: "sqlite:x"}
	tale := newStory(terminal.New(&out, nil), s, 3, map[string]Result{"a": {Worker: "worker-1@8"}})
	tale.now = func() time.Duration { return 2 * time.Second }
	tale.begin(s, "/x")
	tale.event(Event{Event: workerStarted, Worker: "worker-1@7"})
	tale.see(view{
		results: map[string]Result{"a": {Worker: "worker-1@8"}, "b": {Worker: "worker-2@8"}},
		deaths:  []death{{Worker: "worker-1@8", Locked: []string{"c"}}},
	})
	require.Equal(t, []string{
		"", "  ████████████████████░░░░░░░░░░  2 of 3 files",
		"  worker-1@7   0 files  waiting",
		"  worker-1@8    1 file  died, had 1 file locked",
		"  worker-2@8    1 file  in another run",
	}, tale.block())
	tale.event(Event{Event: entryAcquired, Worker: "worker-1@7", Entry: "c"})
	require.Equal(t, `3 files in x, 1 worker. Each file is locked, hashed and unlocked.
1 file done before this run.

  2.0s  worker-1@8, of another run, has died with 1 file locked.
  2.0s  worker-1@7 takes over from worker-1@8, first c
`, out.String())
}

func TestTheSentenceAtTheEnd(t *testing.T) {
	t.Parallel()
	done := Summary{Complete: true, Entries: 9, Done: 9, Workers: map[string]int{"a": 8, "b": 1, "idle": 0}}
	with := func(change func(s *Summary)) Summary {
		s := done
		change(&s)
		return s
	}
	for want, s := range map[string]Summary{
		"9 files hashed exactly once by 2 workers.": done,
		"9 files hashed exactly once by 2 workers; one was killed, 1 of its files was taken over.": with(func(s *Summary) {
			s.deaths, s.takenOver = []death{{Killed: true}}, 1
		}),
		"9 files hashed exactly once by 2 workers; 2 died, 4 of their files were taken over.": with(func(s *Summary) {
			s.deaths, s.takenOver = []death{{Killed: true}, {}}, 4
		}),
		"7 of 9 files are hashed.": with(func(s *Summary) {
			s.Complete, s.Done = false, 7
		}),
		"9 files hashed, and 1 duplicate: the locks did not exclude.": with(func(s *Summary) { s.Duplicates = 1 }),
	} {
		require.Equal(t, want, s.sentence(0))
	}
	require.Equal(t, "Nothing was left to do: 9 files had been hashed by 2 workers.", done.sentence(9))
}

// The name of a folder's entries is that of its path: another folder of the same
// name has entries of its own.
func TestEntriesAreNamedByTheFoldersPath(t *testing.T) {
	t.Parallel()
	require.NotEqual(t, setName("", "/a/mails"), setName("", "/b/mails"))
	require.NotEqual(t, setName("mails", "/a/mails"), setName("", "/a/mails"))
	require.Equal(t, setName("mails", "/a/mails"), setName("mails", "/b/mails"))
	require.LessOrEqual(t, len("lease/pool//")+len(setName("", "/"+strings.Repeat("ü", 100))), 64,
		"what longestName leaves for it")
}
