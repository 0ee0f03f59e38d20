package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/dynalock/dynalock/lease"
)

const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the other screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	goHome      = "\x1b[H"
	clearRight  = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// Keys that top knows, as a terminal in raw mode sends them.
const (
	keyInterrupt = 0x03
	keyEnd       = 0x04
	keyBackspace = 0x08
	keyEscape    = 0x1b
	keyDelete    = 0x7f
)

// top shows what is held, again and again. One goroutine has its fields. What others
// find out comes as functions for that one to call.
type top struct {
	*cli
	store  *opened
	prefix string
	watch  *watcher
	found  chan func()
	others sync.WaitGroup

	view     int
	filter   string
	table    []string  // of the last listing, the heading first
	listed   time.Time // zero: nothing yet
	message  string    // of what a key did, until the next key
	trouble  string    // of the last listing
	question *question // nil: keys are commands
	listing  bool      // one is under way
	again    bool      // it is of what was asked for before
	failed   error     // ends top
}

// question is what is asked for on the second line.
type question struct {
	text   string
	typed  []rune
	answer func(typed string)
}

// views are what top shows one of.
var views = []struct {
	name string
	list func(page *cli, ctx context.Context, t *top) error
}{
	{"locks", func(page *cli, ctx context.Context, t *top) error { return page.ls(ctx, t.store, t.prefix, t.watch) }},
	{"elections", func(page *cli, ctx context.Context, t *top) error {
		return page.ls(ctx, t.store, electionKey(t.prefix), t.watch)
	}},
	{"sessions", func(page *cli, ctx context.Context, t *top) error { return page.sessions(ctx, t.store) }},
	{"pools", func(page *cli, ctx context.Context, t *top) error { return page.listPools(ctx, t.store) }},
}

func (c *cli) topCommand() *cobra.Command {
	var every time.Duration
	cmd := &cobra.Command{
		Use: "top [PREFIX]", Short: "Show what is held on the whole terminal, and keep it up to date", Args: onePrefix("top"),
		Long: `top shows what ls --watch lists, and the elections, the sessions and the pools. Locks and elections are
those whose keys begin with PREFIX.

  s  shows the next of locks, elections, sessions and pools
  /  shows only lines that contain a text
  b  asks for a key, and takes it from its holder as break does
  q  ends`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.top(cmd.Context(), strings.Join(args, ""), every)
		},
	}
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "how often to look")
	return cmd
}

func (c *cli) top(ctx context.Context, prefix string, every time.Duration) error {
	screen, ok := c.out.(*os.File)
	switch {
	case every < minWatch:
		return usage(fmt.Errorf("top: --every=%v: want %v or more", every, minWatch))
	case c.output != "table" && c.output != "wide":
		return usage(fmt.Errorf("top: --output %s: want table or wide; ls --watch has the rest", c.output))
	case !ok || !term.IsTerminal(int(screen.Fd())) || !term.IsTerminal(int(c.in.Fd())):
		return usage(errors.New("top: needs a terminal to read from and to write to: use ls --watch"))
	}
	return c.untilStopped(ctx, func(ctx context.Context, s *opened) error {
		cooked, err := term.MakeRaw(int(c.in.Fd()))
		if err != nil {
			return err
		}
		defer func() {
			_, _ = fmt.Fprint(screen, leaveScreen)
			_ = term.Restore(int(c.in.Fd()), cooked)
		}()
		_, _ = fmt.Fprint(screen, enterScreen)
		t := &top{cli: c, store: s, prefix: prefix, watch: &watcher{}, found: make(chan func())}
		ctx, cancel := context.WithCancel(ctx)
		defer t.others.Wait()
		defer cancel()
		return t.run(ctx, screen, every)
	})
}

// run shows what there is until q is pressed or ctx ends.
func (t *top) run(ctx context.Context, screen *os.File, every time.Duration) error {
	keys := t.keys(ctx)
	tick := time.NewTicker(every)
	defer tick.Stop()
	t.list(ctx)
	for t.failed == nil {
		if err := t.draw(screen); err != nil {
			return err
		}
		select {
		case key, ok := <-keys:
			if !ok || t.press(ctx, key) {
				return nil
			}
		case do := <-t.found:
			do()
		case <-tick.C:
			t.list(ctx)
		case <-ctx.Done():
			return nil
		}
	}
	return t.failed
}

// keys returns the keys that are pressed. A read cannot be called off, so its
// goroutine ends with the process.
func (t *top) keys(ctx context.Context) <-chan rune {
	keys := make(chan rune)
	go func() {
		defer close(keys)
		for in := bufio.NewReader(t.in); ; {
			key, _, err := in.ReadRune()
			if err != nil {
				return
			}
			select {
			case keys <- key:
			case <-ctx.Done():
				return
			}
		}
	}()
	return keys
}

// press does what a key says, and reports whether it ends top.
func (t *top) press(ctx context.Context, key rune) bool {
	if t.question != nil {
		t.typeOn(key)
		return false
	}
	t.message = ""
	switch key {
	case 'q', keyInterrupt, keyEnd:
		return true
	case 's':
		t.view, t.table, t.listed = (t.view+1)%len(views), nil, time.Time{}
		t.list(ctx)
	case '/':
		t.ask("Show lines that contain: ", func(typed string) { t.filter = typed })
	case 'b':
		t.ask("Break which key? ", func(typed string) { t.inspect(ctx, typed) })
	}
	return false
}

func (t *top) ask(text string, answer func(typed string)) {
	t.question = &question{text: text, answer: answer}
}

// typeOn takes a key as part of an answer.
func (t *top) typeOn(key rune) {
	q := t.question
	switch {
	case key == '\r' || key == '\n':
		t.question = nil
		q.answer(string(q.typed))
	case key == keyEscape || key == keyInterrupt:
		t.question = nil
	case key == keyBackspace || key == keyDelete:
		q.typed = q.typed[:max(len(q.typed)-1, 0)]
	case unicode.IsPrint(key):
		q.typed = append(q.typed, key)
	}
}

// apart does what takes time in a goroutine, and what it returns in that of t.
func (t *top) apart(ctx context.Context, do func() func()) {
	t.others.Go(func() {
		select {
		case t.found <- do():
		case <-ctx.Done():
		}
	})
}

// list begins a listing, if none is under way.
func (t *top) list(ctx context.Context) {
	if t.listing {
		t.again = true
		return
	}
	t.listing = true
	view := t.view
	t.apart(ctx, func() func() {
		table, err := t.read(ctx, view)
		return func() {
			t.listing = false
			switch {
			case err == nil && view == t.view:
				t.table, t.listed, t.trouble = table, time.Now(), ""
			case statusOf(err) == statusUnavailable:
				t.trouble = err.Error()
			case err != nil && ctx.Err() == nil:
				t.failed = err
			}
			if t.again {
				t.again = false
				t.list(ctx)
			}
		}
	})
}

// read returns the lines of a listing.
func (t *top) read(ctx context.Context, view int) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	var text bytes.Buffer
	page := *t.cli
	page.out = &text
	err := t.unanswered(views[view].list(&page, ctx, t))
	return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n"), err
}

// inspect looks at a key that is to be broken, and asks.
func (t *top) inspect(ctx context.Context, key string) {
	t.apart(ctx, func() func() {
		looking, cancel := context.WithTimeout(ctx, t.timeout)
		defer cancel()
		h, err := t.store.Inspect(looking, key)
		return func() {
			switch {
			case err != nil:
				t.message = err.Error()
			case !h.Held():
				t.message = fmt.Sprintf("nobody holds %q", key)
			default:
				t.ask(breakQuestion(h)+" [y/N] ", func(typed string) {
					if isYes(typed) {
						t.breakLock(ctx, h)
					}
				})
			}
		}
	})
}

// breakLock takes a key from its holder.
func (t *top) breakLock(ctx context.Context, h *lease.Holder) {
	t.message = fmt.Sprintf("waiting until %s has stopped", h.Owner)
	t.apart(ctx, func() func() {
		breaking, cancel := context.WithTimeout(ctx, breakTimeout)
		defer cancel()
		err := t.store.Break(breaking, h)
		return func() {
			t.message = fmt.Sprintf("%s was taken from %s", h.Key, h.Owner)
			if err != nil {
				t.message = err.Error()
			}
			t.list(ctx)
		}
	})
}

// draw writes the screen anew.
func (t *top) draw(screen *os.File) error {
	width, height, err := term.GetSize(int(screen.Fd()))
	if err != nil || width <= 0 || height <= 0 {
		width, height = 80, 24
	}
	lines := t.lines(height)
	for i, line := range lines {
		if runes := []rune(line); len(runes) > width {
			lines[i] = string(runes[:width])
		}
	}
	_, err = screen.WriteString(goHome + strings.Join(lines, clearRight+"\r\n") + clearRight + clearBelow)
	return err
}

// lines are those of the screen, at most height.
func (t *top) lines(height int) []string {
	title := "dynalock top: " + views[t.view].name
	if t.listed.IsZero() {
		title += ", looking"
	} else {
		title += " at " + t.listed.Format(time.TimeOnly)
	}
	if t.filter != "" {
		title += fmt.Sprintf(", lines that contain %q", t.filter)
	}
	second := "q ends, / filters, s shows the next, b breaks"
	switch {
	case t.question != nil:
		second = printable(t.question.text+string(t.question.typed)) + "_"
	case t.message != "":
		second = printable(t.message)
	case t.trouble != "":
		second = printable(t.trouble)
	}
	lines := []string{title, second, ""}
	for i, line := range t.table {
		if i == 0 || strings.Contains(line, t.filter) {
			lines = append(lines, line)
		}
	}
	if more := len(lines) - height; more > 0 {
		height = max(height, 1)
		lines = append(lines[:height-1:height-1], fmt.Sprintf("%d more: / filters", more+1))
	}
	return lines
}
