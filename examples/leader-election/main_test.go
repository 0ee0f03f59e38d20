package main_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/internal/proctest"
)

// binary is the built program: statuses and signals are promises of that, not of go run.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "leader-election-test-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(folder) }()
		binary = filepath.Join(folder, "leader-election")
		if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%s\n", out)
			return 1
		}
		return m.Run()
	}())
}

// limit is far more than any run takes, on a machine that does much else.
const limit = 3 * time.Minute

// program is a running one.
type program struct {
	*exec.Cmd
	lines *bufio.Scanner
}

// start runs the program, in an environment without AWS settings but for env.
func start(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "AWS_") })
	cmd.Env = append(cmd.Env, "HOME="+t.TempDir(), "TMPDIR="+t.TempDir())
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	cmd.Stderr = cmd.Stdout
	words := proctest.Watch(t, cmd, "leader-election "+strings.Join(args, " "))
	require.NoError(t, cmd.Start())
	return &program{cmd, bufio.NewScanner(io.TeeReader(out, words))}
}

// await reads on to a line that matches pattern, and returns its groups.
func (p *program) await(t *testing.T, pattern string) []string {
	t.Helper()
	for p.lines.Scan() {
		if groups := regexp.MustCompile(pattern).FindStringSubmatch(p.lines.Text()); groups != nil {
			return groups[1:]
		}
	}
	require.Fail(t, "the program ended without "+pattern)
	return nil
}

// end reads the rest and returns the exit status.
func (p *program) end(t *testing.T) int {
	t.Helper()
	for p.lines.Scan() {
	}
	_ = p.Wait() // the status says it
	return p.ProcessState.ExitCode()
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	require.NoError(t, err)
	return n
}

func TestACrashedLeaderIsSucceeded(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "-crash", "-ttl", "3s")
	old := number(t, p.await(t, `with token (\d+) was killed: the others wait, for about 3s`)[0])
	p.await(t, `LEADS with token \d+: the leader before had died`)
	tokens := p.await(t, `leads \S+s after the crash, with token (\d+) after (\d+)`)
	require.Equal(t, old, number(t, tokens[1]))
	require.Greater(t, number(t, tokens[0]), old)
	require.Zero(t, p.end(t))
}

func TestTheWayOfTheReadme(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "-ttl", "3s")
	victim := number(t, p.await(t, `leads; try kill -9 (\d+)`)[0])
	require.NoError(t, syscall.Kill(victim, syscall.SIGKILL))
	next := number(t, p.await(t, `leads; try kill -9 (\d+)`)[0])
	require.NotEqual(t, victim, next)
	require.NoError(t, p.Process.Signal(syscall.SIGTERM))
	require.Zero(t, p.end(t))
}

func TestOneCandidatePerTerminal(t *testing.T) {
	t.Parallel()
	flags := []string{"-store", "sqlite:" + filepath.Join(t.TempDir(), "demo.db"), "-candidates", "1"}
	first := start(t, nil, flags...)
	first.await(t, "LEADS")
	second := start(t, nil, flags...)
	second.await(t, `waits for .* to resign or to die$`)
	require.NoError(t, first.Process.Signal(syscall.SIGTERM))
	first.await(t, "stops")
	require.Zero(t, first.end(t))
	second.await(t, `LEADS with token \d+$`)
	require.NoError(t, second.Process.Signal(syscall.SIGINT))
	require.Zero(t, second.end(t))
}

func TestTheHelpListsTheFlagsThatAreForPeople(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "-h")
	for p.lines.Scan() {
		require.NotContains(t, p.lines.Text(), "internal")
		require.NotContains(t, p.lines.Text(), "-candidate ")
		require.LessOrEqual(t, len(strings.ReplaceAll(p.lines.Text(), "\t", "    ")), 80, p.lines.Text())
	}
	require.Zero(t, p.end(t))
}

func TestOnDynamoDB(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("needs DynamoDB Local: left out by -short")
	}
	endpoint, stop, err := dynamolocal.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(stop)
	env := []string{
		"AWS_ENDPOINT_URL_DYNAMODB=" + endpoint,
		"AWS_REGION=eu-west-1", "AWS_ACCESS_KEY_ID=fake", "AWS_SECRET_ACCESS_KEY=fake",
	}
	p := start(t, env, "-store", "dynamodb:leader-election", "-create-table", "-crash", "-ttl", "3s")
	p.await(t, `leads \S+s after the crash`)
	require.Zero(t, p.end(t))
}

func TestOnPostgres(t *testing.T) {
	t.Parallel()
	dsn := postgreslocal.Own(t).DSN(postgreslocal.Superuser, "")
	p := start(t, nil, "-store", dsn, "-create-table", "-crash", "-ttl", "3s")
	p.await(t, `leads \S+s after the crash`)
	require.Zero(t, p.end(t))
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	for advice, args := range map[string][]string{
		"3s":              {"-ttl", "1s"},
		"1 or more":       {"-candidates", "0"},
		"2 or more":       {"-crash", "-candidates", "1"},
		"-candidates 1":   {"-store", "memory"},
		"unknown store":   {"-store", "redis:x"},
		"lists the flags": {"-nonsense"},
		"lists them":      {"argument"},
	} {
		p := start(t, nil, args...)
		p.await(t, regexp.QuoteMeta(advice))
		require.Equal(t, 2, p.end(t), advice)
	}
}
