// Package proctest shows what the processes said that a test has started,
// when the test fails.
package proctest

import (
	"bytes"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"testing"
)

// kept is how many bytes of a process's words are kept at least, and shown how
// many are logged at most: the last.
const (
	kept  = 1 << 20
	shown = 64 << 10
)

// Words are what a process has said so far, or its last MiB at least. They
// are safe for concurrent use. The zero Words are ready for use.
type Words struct {
	mu   sync.Mutex
	text bytes.Buffer
	// lost is how many bytes came before text.
	lost int
}

// Write implements io.Writer. It never fails.
func (w *Words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text.Write(p)
	if n := w.text.Len(); n > 2*kept {
		w.text.Next(n - kept)
		w.lost += n - kept
	}
	return len(p), nil
}

// String returns them.
func (w *Words) String() string { return w.last(2 * kept) }

// last returns at most n bytes, and says how many came before.
func (w *Words) last(n int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := w.text.Bytes()
	text = text[max(0, len(text)-n):]
	if before := w.lost + w.text.Len() - len(text); before > 0 {
		return fmt.Sprintf("[%d bytes before]%s", before, text)
	}
	return string(text)
}

// Watch keeps what cmd will say, and logs it at the end of a test that has
// failed, its last 64 KiB, with name and the process's id. Call it before cmd is started, and
// before registering what ends cmd with t.Cleanup.
//
// It takes standard error, and standard output too if nothing else takes it
// by then. A test that reads one of them itself passes what it reads on: by
// io.TeeReader(stdout, words), or by io.MultiWriter(&stderr, words).
func Watch(t testing.TB, cmd *exec.Cmd, name string) *Words {
	t.Helper()
	words := &Words{}
	if cmd.Stdout == nil {
		cmd.Stdout = words
	}
	if cmd.Stderr == nil {
		cmd.Stderr = words
	}
	t.Cleanup(func() {
		switch {
		case !t.Failed():
		case cmd.Process == nil:
			t.Logf("%s was not started", name)
		case words.String() == "":
			t.Logf("%s (process %d) said nothing", name, cmd.Process.Pid)
		default:
			t.Logf("%s (process %d) said:\n%s", name, cmd.Process.Pid, words.last(shown))
		}
	})
	return words
}

// Pipe is Watch for a test that reads the standard output of cmd itself, from
// the reader that it returns. cmd is to be waited for when that has ended.
func Pipe(t testing.TB, cmd *exec.Cmd, name string) (stdout io.Reader, words *Words, err error) {
	t.Helper()
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	words = Watch(t, cmd, name)
	return io.TeeReader(pipe, words), words, nil
}
