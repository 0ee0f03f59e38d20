package web_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/notrun"
	"github.com/dynalock/dynalock/internal/npmpack"
	"github.com/dynalock/dynalock/internal/proctest"
)

// playwright drives the browser.
var playwright = npmpack.Archive{
	Name: "playwright-core", Version: "1.64.1",
	SHA256: "3af03703c967c95037454f2283f709d53ce804a4776d4219d319f5bbcc2a0185",
	Folder: "package/", File: "package.json",
}

// browser is a browser that a program in testdata drives.
type browser struct {
	t       *testing.T
	mu      sync.Mutex
	in      io.WriteCloser
	answers *bufio.Reader
}

// newBrowser starts a browser. Where there is none, the test is left out.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	if testing.Short() {
		t.Skip("it starts a browser")
	}
	program := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil && program == "" {
			program = path
		}
	}
	node, err := exec.LookPath("node")
	_, npmErr := exec.LookPath("npm")
	if program == "" || errors.Join(err, npmErr) != nil {
		notrun.Skip(t, "the tests of the page in a browser", "on Debian: apt-get install chromium nodejs npm")
	}
	library, err := playwright.Fetch(t.Context())
	require.NoError(t, err)
	cmd := exec.Command(node, "testdata/browser.mjs", library, program)
	b := &browser{t: t}
	b.in, err = cmd.StdinPipe()
	require.NoError(t, err)
	out, _, err := proctest.Pipe(t, cmd, "browser")
	require.NoError(t, err)
	b.answers = bufio.NewReader(out)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = b.in.Close() // it ends itself and the browser
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			_ = cmd.Process.Kill()
			<-ended
		}
	})
	return b
}

// args are what a command takes.
type args map[string]any

// do runs a command and returns its answer.
func (b *browser) do(command string, with args) json.RawMessage {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	line := args{"do": command}
	for name, value := range with {
		line[name] = value
	}
	text, err := json.Marshal(line)
	require.NoError(b.t, err)
	_, err = b.in.Write(append(text, '\n'))
	require.NoError(b.t, err)
	text, err = b.answers.ReadBytes('\n')
	require.NoError(b.t, err, "the browser has ended")
	var answer struct {
		Is    json.RawMessage
		Error string
	}
	require.NoError(b.t, json.Unmarshal(text, &answer))
	require.Empty(b.t, answer.Error, "%s %v", command, with)
	return answer.Is
}

// open opens a page called id, and returns the status of its answer.
func (b *browser) open(id, url string, with args) int {
	b.t.Helper()
	line := args{"id": id, "url": url}
	for name, value := range with {
		line[name] = value
	}
	return answer[int](b, "open", line)
}

// eval is what an expression is in the page.
func eval[T any](b *browser, id, js string) T {
	b.t.Helper()
	return answer[T](b, "eval", args{"id": id, "js": js})
}

func answer[T any](b *browser, command string, with args) (is T) {
	b.t.Helper()
	require.NoError(b.t, json.Unmarshal(b.do(command, with), &is))
	return is
}

// patience bounds what a busy machine makes last.
const patience = time.Minute

// wait waits until an expression is true in the page, and returns for how long.
func (b *browser) wait(id, js string) time.Duration {
	b.t.Helper()
	ms := answer[float64](b, "wait", args{"id": id, "js": js, "timeout": patience.Milliseconds()})
	return time.Duration(ms * float64(time.Millisecond))
}

// requireQuiet requires that the console has said nothing.
func (b *browser) requireQuiet() {
	b.t.Helper()
	require.Empty(b.t, answer[[]string](b, "complaints", nil), "what the console says")
}
