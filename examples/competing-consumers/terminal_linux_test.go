package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/dynalock/dynalock/internal/proctest"
)

// openTerminal returns a pseudo-terminal of 80 columns and 24 rows: what is read
// from screen is what a program writes to terminal.
func openTerminal(t *testing.T) (screen, terminal *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = screen.Close() })
	fd := int(screen.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: 80, Row: 24}))
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	return screen, terminal
}

// On a terminal each worker has a line that changes, with a countdown while a
// dead one's locks are waited for. At the end these lines are gone.
func TestOnATerminalTheWaitIsCountedDown(t *testing.T) {
	t.Parallel()
	screen, terminal := openTerminal(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-input", files(t, 20), "-crash", "-ttl", "3s")
	cmd.Env = append(os.Environ(), "TERM=xterm", "HOME="+t.TempDir())
	cmd.Stdout = terminal
	words := proctest.Watch(t, cmd, "competing-consumers on a terminal")
	require.NoError(t, cmd.Start())
	require.NoError(t, terminal.Close())
	var shown bytes.Buffer
	_, _ = io.Copy(io.MultiWriter(&shown, words), screen) // it ends with an error when the last writer has gone
	require.NoError(t, cmd.Wait())
	text := shown.String()
	require.Regexp(t, `worker-1 +1 file  killed, had \d+ files? locked: about 1\.\d+s more`, text)
	require.Regexp(t, `worker-1 +1 file  killed, had \d+ files? locked: about 0\.\d+s more`, text)
	require.Regexp(t, `█░+  \d+ of 20 files`, text)
	require.Regexp(t, `\x1b\[J  worker-1 +1 file  killed\x1b\[K\r\n\x1b\[J  worker-2`, text)
}
