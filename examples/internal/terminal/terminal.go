// Package terminal shows what the examples have to say: lines, and on a terminal
// a block below them that changes in place.
package terminal

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/term"
)

// Screen shows lines. On a terminal it also shows a block below them. Elsewhere
// there are only lines, without escapes. It is safe for concurrent use.
type Screen struct {
	out io.Writer
	// size is nil where there is no terminal.
	size  func() (columns, rows int)
	mu    sync.Mutex
	block []string // as it is shown now
}

// New returns a Screen on out. size returns a terminal's columns and rows. It is
// nil if there is none.
func New(out io.Writer, size func() (columns, rows int)) *Screen {
	return &Screen{out: out, size: size}
}

// Stdout returns a Screen on standard output.
func Stdout() *Screen {
	fd := int(os.Stdout.Fd())
	if !term.IsTerminal(fd) || os.Getenv("TERM") == "dumb" {
		return New(os.Stdout, nil)
	}
	return New(os.Stdout, func() (columns, rows int) {
		columns, rows, err := term.GetSize(fd)
		if err != nil || columns < 20 || rows < 4 {
			return 80, 24
		}
		return columns, rows
	})
}

// IsTerminal reports whether there is a terminal.
func (s *Screen) IsTerminal() bool { return s.size != nil }

// Line shows text above the block. On a terminal it is wrapped, and what is
// wrapped begins after so many spaces.
func (s *Screen) Line(text string, indent int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.IsTerminal() {
		s.write(text + "\n")
		return
	}
	columns, _ := s.size()
	s.redraw(append(strings.Split(wrap(text, columns-1, indent), "\n"), s.block...))
}

// Draw shows block in the place of the one before. It does nothing where there
// is no terminal.
func (s *Screen) Draw(block []string) {
	if !s.IsTerminal() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	columns, rows := s.size()
	if most := rows - 2; len(block) > most {
		block = append(slices.Clone(block[:most]), fmt.Sprintf("  and %d more", len(block)-most))
	}
	cut := make([]string, len(block))
	for i, line := range block {
		cut[i] = head(line, columns-1)
	}
	if !slices.Equal(cut, s.block) {
		s.redraw(cut)
		s.block = cut
	}
}

// redraw shows lines in the place of the block, all at once, so that nothing
// flickers. The cursor is below the last line, before and after.
func (s *Screen) redraw(lines []string) {
	var text strings.Builder
	if n := len(s.block); n > 0 {
		fmt.Fprintf(&text, "\x1b[%dA\r", n)
	}
	for _, line := range lines {
		text.WriteString(line + "\x1b[K\n") // the rest of what was there goes
	}
	s.write(text.String() + "\x1b[J")
}

// write does not say whether it could: a reader that has gone away is a SIGPIPE,
// which stops the run.
func (s *Screen) write(text string) { _, _ = io.WriteString(s.out, text) }

// head returns the beginning of text, as much as fits into so many columns.
func head(text string, columns int) string {
	if runes := []rune(text); len(runes) > columns {
		return string(runes[:columns-3]) + "..."
	}
	return text
}

// Tail returns the end of text, as much as fits into so many columns.
func Tail(text string, columns int) string {
	if runes := []rune(text); len(runes) > columns {
		return "..." + string(runes[len(runes)-columns+3:])
	}
	return text
}

// wrap breaks text between words.
func wrap(text string, columns, indent int) string {
	var lines []string
	line, words := "", 0
	for _, word := range strings.Split(text, " ") {
		if words > 0 && utf8.RuneCountInString(line+" "+word) > columns {
			lines = append(lines, line)
			line, words = strings.Repeat(" ", max(0, indent-1)), 0
		}
		if words > 0 || len(lines) > 0 && indent > 0 {
			line += " "
		}
		line += word
		words++
	}
	return strings.Join(append(lines, line), "\n")
}
