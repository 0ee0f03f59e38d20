package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/dynalock/dynalock/lease"
)

// waiting tells a person for whom and how long run waits: on a terminal in one
// line that is written anew each second, elsewhere once.
type waiting struct {
	*cli
	keys  []string
	began time.Time

	mu    sync.Mutex
	text  string
	stop  chan struct{}
	ended bool
}

// observe is the client's observer.
func (w *waiting) observe(e lease.Event) {
	if e.Type != lease.EventWaiting || w.quiet {
		return
	}
	text := fmt.Sprintf("waiting for %s, held by %s", e.Key, e.Owner)
	if e.Err != nil {
		text = fmt.Sprintf("waiting for %s: %v", e.Key, e.Err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || text == w.text {
		return
	}
	w.text = text
	if !w.onTerminal() {
		_, _ = fmt.Fprintln(w.err, "dynalock: "+text)
		return
	}
	if w.stop == nil {
		w.stop = make(chan struct{})
		go w.tick(w.stop)
	}
	w.draw()
}

func (w *waiting) onTerminal() bool {
	f, ok := w.err.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (w *waiting) tick(stop <-chan struct{}) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			w.mu.Lock()
			if !w.ended {
				w.draw()
			}
			w.mu.Unlock()
		case <-stop:
			return
		}
	}
}

const clearLine = "\r\x1b[K"

// draw writes the line anew. The caller holds mu.
func (w *waiting) draw() {
	width := 80
	if f, ok := w.err.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil && columns > 0 {
			width = columns
		}
	}
	line := fmt.Sprintf("%s, for %s", w.text, short(time.Since(w.began)))
	if runes := []rune(line); len(runes) >= width {
		line = string(runes[:width-1])
	}
	_, _ = fmt.Fprint(w.err, clearLine+strings.ReplaceAll(line, "\n", " "))
}

// end takes the line away.
func (w *waiting) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.stop != nil {
		close(w.stop)
		_, _ = fmt.Fprint(w.err, clearLine)
	}
}
