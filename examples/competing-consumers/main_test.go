package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/proctest"
)

// binary is the built program: statuses and signals are promises of that, not of go run.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "competing-consumers-test-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(folder) }()
		binary = filepath.Join(folder, "competing-consumers")
		if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s\n", out)
			return 1
		}
		return m.Run()
	}())
}

// limit is far more than any run takes.
const limit = 2 * time.Minute

// line is any line of -json.
type line struct {
	Event      string
	At         int64
	Worker     string
	Entry      string
	Complete   bool
	Entries    int
	Duplicates int
	Takeovers  int
	Killed     []string
	Workers    map[string]int
	Seconds    float64
	Requests   map[string]int
}

// program is a running one.
type program struct {
	*exec.Cmd
	stdout *bufio.Scanner
	stderr bytes.Buffer
}

// start runs the program with -json, in an environment without AWS settings but for env.
func start(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	p := &program{Cmd: exec.CommandContext(ctx, binary, append([]string{"-json"}, args...)...)}
	p.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "AWS_") })
	p.Env = append(p.Env, "HOME="+t.TempDir())
	p.Env = append(p.Env, env...)
	stdout, words, err := proctest.Pipe(t, p.Cmd, "competing-consumers "+strings.Join(args, " "))
	require.NoError(t, err)
	p.Stderr = io.MultiWriter(&p.stderr, words)
	p.stdout = bufio.NewScanner(stdout)
	p.stdout.Buffer(nil, 1<<20)
	require.NoError(t, p.Start())
	return p
}

// next returns the next line, ok false at the end.
func (p *program) next(t *testing.T) (l line, ok bool) {
	t.Helper()
	if !p.stdout.Scan() {
		require.NoError(t, p.stdout.Err())
		return l, false
	}
	require.NoError(t, json.Unmarshal(p.stdout.Bytes(), &l), p.stdout.Text())
	require.NotEmpty(t, l.Event)
	return l, true
}

// await reads on to the next event of this kind.
func (p *program) await(t *testing.T, event string) line {
	t.Helper()
	for {
		l, ok := p.next(t)
		require.True(t, ok, "no event %q", event)
		if l.Event == event {
			return l
		}
	}
}

// end reads the rest and returns the last line and the exit status.
func (p *program) end(t *testing.T) (last line, status int) {
	t.Helper()
	for {
		l, ok := p.next(t)
		if !ok {
			break
		}
		last = l
	}
	err := p.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return last, exit.ExitCode()
	}
	require.NoError(t, err)
	return last, 0
}

// complete reads the rest and requires a run that ended well.
func (p *program) complete(t *testing.T, entries int) line {
	t.Helper()
	last, status := p.end(t)
	require.Zero(t, status)
	require.Empty(t, p.stderr.String())
	require.Equal(t, "summary", last.Event)
	require.True(t, last.Complete)
	require.Equal(t, entries, last.Entries)
	require.Zero(t, last.Duplicates)
	require.Positive(t, last.Seconds)
	sum := 0
	for _, n := range last.Workers {
		sum += n
	}
	require.Equal(t, entries, sum, "entries by worker: %v", last.Workers)
	return last
}

// files makes a folder of n files, in two folders of its own and with one in
// hidden folders that are not entries.
func files(t *testing.T, n int) string {
	t.Helper()
	folder := t.TempDir()
	for _, sub := range []string{"a", "b ü", ".git", "bin/.cache"} {
		require.NoError(t, os.MkdirAll(filepath.Join(folder, sub), 0o700))
	}
	require.NoError(t, os.WriteFile(filepath.Join(folder, ".git", "config"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "bin", ".cache", "object"), nil, 0o600))
	for i := range n {
		sub := []string{"", "a", "b ü"}[i%3]
		name := filepath.Join(folder, sub, fmt.Sprintf("%03d", i))
		require.NoError(t, os.WriteFile(name, bytes.Repeat([]byte{byte(i)}, i*1000), 0o600))
	}
	return folder
}

// requireEmpty requires that folder, the TMPDIR of a run, holds nothing.
func requireEmpty(t *testing.T, folder string) {
	t.Helper()
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Empty(t, left)
}
