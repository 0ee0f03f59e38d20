//go:build unix

package proctest_test

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/proctest"
)

// fake is a test of which it is known how it ends.
type fake struct {
	testing.TB
	failed  bool
	cleanup []func()
	log     string
}

func (f *fake) Helper()                 {}
func (f *fake) Failed() bool            { return f.failed }
func (f *fake) Cleanup(do func())       { f.cleanup = append(f.cleanup, do) }
func (f *fake) Logf(s string, a ...any) { f.log += fmt.Sprintf(s, a...) + "\n" }

func (f *fake) end() {
	for _, do := range f.cleanup {
		do()
	}
}

func TestAFailedTestShowsWhatItsProcessesSaid(t *testing.T) {
	t.Parallel()
	for _, failed := range []bool{false, true} {
		f := &fake{failed: failed}
		first := exec.Command("sh", "-c", "echo out; echo err >&2; exit 3")
		proctest.Watch(f, first, "first")
		require.Error(t, first.Run())
		second := exec.Command("sh", "-c", "echo out; echo err >&2")
		stdout, _, err := proctest.Pipe(f, second, "second")
		require.NoError(t, err)
		require.NoError(t, second.Start())
		text, err := io.ReadAll(stdout)
		require.NoError(t, err)
		require.Equal(t, "out\n", string(text))
		require.NoError(t, second.Wait())
		proctest.Watch(f, exec.Command("sh"), "third")
		fourth := exec.Command("true")
		proctest.Watch(f, fourth, "fourth")
		require.NoError(t, fourth.Run())
		f.end()
		if !failed {
			require.Empty(t, f.log)
			continue
		}
		require.Contains(t, f.log, fmt.Sprintf("first (process %d) said:\nout\nerr\n", first.Process.Pid))
		require.Contains(t, f.log, fmt.Sprintf("second (process %d) said:\n", second.Process.Pid))
		require.Equal(t, 2, strings.Count(f.log, "out\n"))
		require.Equal(t, 2, strings.Count(f.log, "err\n"))
		require.Contains(t, f.log, "third was not started")
		require.Contains(t, f.log, fmt.Sprintf("fourth (process %d) said nothing", fourth.Process.Pid))
	}
}

func TestTheLastWordsAreKeptAndFewerOfThemShown(t *testing.T) {
	t.Parallel()
	const line, lines = 100, 25_000
	f := &fake{failed: true}
	cmd := exec.Command("true")
	words := proctest.Watch(f, cmd, "it")
	require.NoError(t, cmd.Run())
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range lines / 4 {
				_, _ = words.Write([]byte(strings.Repeat("x", line-1) + "\n"))
			}
		})
	}
	writers.Wait()
	_, err := words.Write([]byte("the end"))
	require.NoError(t, err)
	f.end()
	_, logged, found := strings.Cut(f.log, "said:\n")
	require.True(t, found)
	for text, size := range map[string]int{words.String(): 1 << 20, strings.TrimSuffix(logged, "\n"): 64 << 10} {
		require.True(t, strings.HasSuffix(text, "x\nthe end"))
		var before int
		_, err = fmt.Sscanf(text, "[%d bytes before]", &before)
		require.NoError(t, err)
		said := len(text) - len(fmt.Sprintf("[%d bytes before]", before))
		require.GreaterOrEqual(t, said, size)
		require.LessOrEqual(t, said, 2*size)
		require.Equal(t, line*lines+len("the end"), before+said)
	}
}
