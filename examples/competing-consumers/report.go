package main

import (
	"encoding/json"
	"os"
	"strings"
)

// Summary is the last line of -json, and what the end of the story tells.
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

	// deaths are the workers that died, of all runs on the store. takenOver counts
	// the entries that these had locked and that others did.
	deaths    []death
	takenOver int
}

// report shows a run.
type report interface {
	// event shows what a worker of this run has reported.
	event(e Event)
	// died shows the death of a worker of this run, of which e tells.
	died(d death, e Event)
	// see shows what the store says, of other runs too.
	see(v view)
	// tick shows what the passing of time has changed.
	tick()
	// summary shows the end.
	summary(s Summary)
}

// jsonReport is a report as lines of JSON.
type jsonReport struct{ out *json.Encoder }

func newJSONReport() jsonReport { return jsonReport{json.NewEncoder(os.Stdout)} }

// event implements report.
func (r jsonReport) event(e Event) {
	if e.Event != entrySeen && e.Event != workerExited {
		_ = r.out.Encode(e) // a reader that has gone away is a SIGPIPE, which stops the run
	}
}

// died implements report.
func (jsonReport) died(death, Event) {}

// see implements report.
func (jsonReport) see(view) {}

// tick implements report.
func (jsonReport) tick() {}

// summary implements report.
func (r jsonReport) summary(s Summary) { _ = r.out.Encode(s) } // see event

// oneLine puts a text of several lines into one.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
