package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Summary is the last line of -json, and what the table shows.
type Summary struct {
	Event string `json:"event"` // "summary"
	At    int64  `json:"at"`
	// Complete tells that every entry has a right result. Done counts the
	// entries that have one, Wrong those whose result does not fit the file.
	Complete bool `json:"complete"`
	Entries  int  `json:"entries"`
	Done     int  `json:"done"`
	Wrong    int  `json:"wrong"`
	// Duplicates counts second accepted results of an entry and overlapping
	// holders of one; right is 0.
	Duplicates int `json:"duplicates"`
	// Takeovers counts locks that were taken from a worker that had died.
	// Killed are the workers that -crash killed.
	Takeovers int      `json:"takeovers"`
	Killed    []string `json:"killed"`
	// Workers has the number of entries that each worker did.
	Workers map[string]int `json:"workers"`
	Seconds float64        `json:"seconds"`
	// Requests are the store requests by kind, of the workers and of offering the entries to them.
	Requests map[string]int `json:"requests"`
}

// report shows a run: as lines of JSON, or as a progress bar, where there is a
// terminal, and a table.
type report struct {
	json *json.Encoder
	bar  *progressbar.ProgressBar
	done map[string]bool
}

// newReport reports on a run over so many entries, of which right have a result already.
func newReport(asJSON bool, entries int, right map[string]Result) *report {
	r := &report{done: make(map[string]bool)}
	for entry := range right {
		r.done[entry] = true
	}
	if asJSON {
		r.json = json.NewEncoder(os.Stdout)
		return r
	}
	if term.IsTerminal(int(os.Stderr.Fd())) {
		r.bar = progressbar.NewOptions(entries,
			progressbar.OptionSetWriter(os.Stderr), progressbar.OptionSetDescription("entries"), progressbar.OptionShowCount(),
			progressbar.OptionThrottle(50*time.Millisecond), progressbar.OptionSetRenderBlankState(true),
			progressbar.OptionOnCompletion(func() { fmt.Fprintln(os.Stderr) }))
	}
	return r
}

// event shows one event.
func (r *report) event(e Event) {
	if e.Event == entryDone || e.Event == entrySeen {
		r.done[e.Entry] = true
		if r.bar != nil {
			_ = r.bar.Set(len(r.done)) // a bar that cannot be drawn is no reason to stop
		}
	}
	if r.json != nil && e.Event != entrySeen && e.Event != workerExited {
		_ = r.json.Encode(e) // a reader that has gone away is a SIGPIPE, which stops the run
	}
}

// summary shows the end.
func (r *report) summary(s Summary) {
	switch {
	case r.json != nil:
		_ = r.json.Encode(s) // see event
	default:
		if r.bar != nil && !r.bar.IsFinished() {
			_ = r.bar.Exit() // see event
			fmt.Fprintln(os.Stderr)
		}
		s.table(os.Stdout)
	}
}

// table writes s for people.
func (s Summary) table(out io.Writer) {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.SetStyle(table.StyleLight)
	t.AppendRows([]table.Row{
		{"entries", fmt.Sprintf("%d of %d", s.Done, s.Entries)}, {"duplicates", s.Duplicates}, {"takeovers", s.Takeovers},
	})
	t.AppendSeparator()
	for _, name := range slices.Sorted(maps.Keys(s.Workers)) {
		label := name
		if slices.Contains(s.Killed, name) {
			label += " (killed)"
		}
		t.AppendRow(table.Row{label, s.Workers[name]})
	}
	t.AppendSeparator()
	total := 0
	for _, kind := range slices.Sorted(maps.Keys(s.Requests)) {
		t.AppendRow(table.Row{"requests: " + kind, s.Requests[kind]})
		total += s.Requests[kind]
	}
	if s.Done > 0 {
		t.AppendRow(table.Row{"requests per entry", fmt.Sprintf("%.1f", float64(total)/float64(s.Done))})
	}
	t.AppendSeparator()
	t.AppendRow(table.Row{"seconds", fmt.Sprintf("%.1f", s.Seconds)})
	t.Render()
}

// oneLine puts a text of several lines into one.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
