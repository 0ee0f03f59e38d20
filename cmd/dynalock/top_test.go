//go:build unix

package main

import (
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
)

// terminal is a command in a pseudo-terminal of 100 columns and 12 lines.
type terminal struct {
	t      *testing.T
	cmd    *exec.Cmd
	keys   *os.File
	output lockedBuffer
}

func inTerminal(t *testing.T, store string, arguments ...string) *terminal {
	t.Helper()
	m := &terminal{t: t, cmd: command(t, store, arguments...)}
	keys, err := pty.StartWithSize(m.cmd, &pty.Winsize{Rows: 12, Cols: 100})
	require.NoError(t, err)
	m.keys = keys
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the terminal shows:\n%s", m.screen())
		}
		_ = m.cmd.Process.Kill() // where it has not ended
		_ = keys.Close()
	})
	go func() { _, _ = io.Copy(&m.output, keys) }() // until the terminal is closed
	return m
}

// screen is what was drawn last.
func (m *terminal) screen() string {
	frames := strings.Split(m.output.String(), goHome)
	for i := len(frames) - 1; i >= 0; i-- {
		if frame, whole := strings.CutSuffix(frames[i], clearBelow); whole {
			return strings.ReplaceAll(frame, clearRight, "")
		}
	}
	return ""
}

func (m *terminal) press(keys string) {
	m.t.Helper()
	_, err := m.keys.WriteString(keys)
	require.NoError(m.t, err)
}

func (m *terminal) shows(texts ...string) {
	m.t.Helper()
	require.Eventually(m.t, func() bool {
		screen := m.screen()
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				return false
			}
		}
		return true
	}, patience, 10*time.Millisecond, "%q", texts)
}

func (m *terminal) hides(text string) {
	m.t.Helper()
	require.Eventually(m.t, func() bool { return !strings.Contains(m.screen(), text) }, patience, 10*time.Millisecond, text)
}

// ends waits for the end, and for the terminal to be as it was.
func (m *terminal) ends(status int) {
	m.t.Helper()
	_ = m.cmd.Wait()
	require.Equal(m.t, status, m.cmd.ProcessState.ExitCode(), m.output.String())
	require.Eventually(m.t, func() bool { return strings.HasSuffix(m.output.String(), leaveScreen) }, patience,
		10*time.Millisecond)
}

// startHolder runs a command under a lock until the test ends.
func startHolder(t *testing.T, store, owner, key string) *exec.Cmd {
	t.Helper()
	cmd := command(t, store, "-q", "--ttl", "6s", "--owner", owner, "run", key, "--", "sleep", "600")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	return cmd
}

func TestTopShowsWhatIsHeldAndBreaksIt(t *testing.T) {
	t.Parallel()
	stores := map[string]func() string{"SQLite": func() string { return fileStore(t) }}
	if !testing.Short() {
		stores["DynamoDB Local"] = func() string {
			return localStore(t, dynamolocal.Endpoint(t)) + "&partition=" + newPartition()
		}
	}
	for name, store := range stores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := store()
			m := inTerminal(t, store, "top", "--every", "100ms")
			m.shows("dynalock top: locks at ", "KEY", "SILENT", "q ends")
			holder := startHolder(t, store, "ada", "demo/one")
			startHolder(t, store, "bob", "demo/two")
			m.shows("demo/one", "ada", "demo/two", "bob", "live")

			m.press("/nothing\x7f\x7f\x7f\x7f\x7f\x7f\x7fadx\x7fa")
			m.shows("Show lines that contain: ada_")
			m.press("\r")
			m.hides("bob")
			m.shows("demo/one", `lines that contain "ada"`)
			m.press("/\r")
			m.shows("bob")

			m.press("s")
			m.shows("dynalock top: elections at ")
			m.press("s")
			m.shows("dynalock top: sessions at ", "JOINED", "ada", "bob")
			m.press("s")
			m.shows("dynalock top: pools at ", "PARTITIONS")
			m.press("s")
			m.shows("dynalock top: locks at ", "demo/one")

			m.press("bnothing\r")
			m.shows(`nobody holds "nothing"`)
			m.press("bdemo/one\r")
			m.shows("Break demo/one, held by ada for ")
			m.press("\r")
			m.shows("demo/one", "q ends")
			m.press("bdemo/one\r")
			m.shows("Break demo/one, held by ada for ")
			m.press("y\r")
			m.shows("demo/one was taken from ada")
			_ = holder.Wait()
			require.Equal(t, statusLost, holder.ProcessState.ExitCode())
			m.press("b\x1b")
			m.shows("q ends")
			m.hides("demo/one")
			m.shows("demo/two")

			m.press("q")
			m.ends(0)
		})
	}
}

func TestBreakAsks(t *testing.T) {
	t.Parallel()
	store := fileStore(t)
	holder := startHolder(t, store, "ada", "demo")
	require.Eventually(t, func() bool {
		out, _ := command(t, store, "ls", "-o", "name").Output()
		return strings.Contains(string(out), "demo")
	}, patience, 50*time.Millisecond)
	asks := func(answer string, status int, says string) {
		m := inTerminal(t, store, "break", "demo")
		require.Eventually(t, func() bool { return strings.Contains(m.output.String(), "[y/N]") }, patience, 10*time.Millisecond)
		require.Contains(t, m.output.String(), "Break demo, held by ada for ")
		m.press(answer + "\n")
		_ = m.cmd.Wait()
		require.Equal(t, status, m.cmd.ProcessState.ExitCode(), m.output.String())
		require.Eventually(t, func() bool { return strings.Contains(m.output.String(), says) }, patience, 10*time.Millisecond)
	}
	asks("", statusFailed, "nothing was done")
	asks("yes", 0, "demo was taken from ada")
	_ = holder.Wait()
	require.Equal(t, statusLost, holder.ProcessState.ExitCode())
}

func TestTopKeepsToTheTerminal(t *testing.T) {
	t.Parallel()
	store := fileStore(t)
	cmd := command(t, store, "run", "--owner", strings.Repeat("long", 50))
	for i := range 20 {
		cmd.Args = append(cmd.Args, string(rune('a'+i)))
	}
	cmd.Args = append(cmd.Args, "--", "sleep", "600")
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	m := inTerminal(t, store, "top", "--every", "100ms")
	m.shows("13 more: / filters") // of 20, 7 are shown
	lines := strings.Split(m.screen(), "\r\n")
	require.Len(t, lines, 12)
	for _, line := range lines {
		require.LessOrEqual(t, len([]rune(line)), 100)
	}
	require.NoError(t, pty.Setsize(m.keys, &pty.Winsize{Rows: 40, Cols: 40}))
	m.shows("\nt  ")
	m.hides("more: / filters")
	require.NoError(t, m.cmd.Process.Signal(syscall.SIGTERM))
	m.ends(0)
}

func TestTopOutlivesAnOutage(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short")
	}
	way, endpoint := newProxy(t, dynamolocal.Endpoint(t))
	store := localStore(t, endpoint) + "&partition=" + newPartition()
	m := inTerminal(t, store, "top", "--every", "100ms", "--timeout", "2s")
	m.shows("dynalock top: locks at ", "KEY")
	close(way.cuts)
	m.shows("no answer within 2s", "KEY")
	m.press("q")
	m.ends(0)
}

func TestTopNeedsATerminal(t *testing.T) {
	t.Parallel()
	for want, arguments := range map[string][]string{
		"use ls --watch":          {"top"},
		"want 100ms or more":      {"top", "--every", "1ms"},
		"ls --watch has the rest": {"top", "-o", "json"},
	} {
		cmd := command(t, fileStore(t), arguments...)
		output, _ := cmd.CombinedOutput()
		require.Equal(t, statusUsage, cmd.ProcessState.ExitCode())
		require.Contains(t, string(output), want)
	}
}
