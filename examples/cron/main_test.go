package main_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/proctest"
)

// binary is the built program: statuses and signals are promises of that, not of go run.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "cron-test-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(folder) }()
		binary = filepath.Join(folder, "cron")
		if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// limit is far more than any run takes, on a machine that does much else.
const limit = 3 * time.Minute

// cron runs the program and returns what it says, and its exit status.
func cron(t *testing.T, args ...string) (said string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	words := proctest.Watch(t, cmd, "cron "+strings.Join(args, " "))
	_ = cmd.Run() // the status says it
	return words.String(), cmd.ProcessState.ExitCode()
}

// A period so long that no test runs over its end.
const period = "10000h"

func TestEveryMachineAsksAndOneRuns(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "log")
	args := []string{"-store", "sqlite:" + filepath.Join(t.TempDir(), "demo.db"), "-job", "report", "-period", period,
		"--", "sh", "-c", `sleep 0.5; test -n "$DYNALOCK_TOKEN" && echo sent >>` + log}
	said, status := make([]string, 5), make([]int, 5)
	var machines sync.WaitGroup
	for i := range said {
		machines.Go(func() { said[i], status[i] = cron(t, args...) })
	}
	machines.Wait()
	here := 0
	for i := range said {
		if strings.Contains(said[i], "done here") {
			here++
		}
		require.Zero(t, status[i], said[i])
	}
	require.Equal(t, 1, here, said)

	again, after := cron(t, args...)
	require.Zero(t, after)
	require.Contains(t, again, "done before")
	sent, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, "sent\n", string(sent))
}

func TestAFailureIsSaidOnEveryMachine(t *testing.T) {
	t.Parallel()
	args := []string{"-store", "sqlite:" + filepath.Join(t.TempDir(), "demo.db"), "-job", "report", "-period", period,
		"--", "false"}
	for range 2 {
		said, status := cron(t, args...)
		require.Equal(t, 1, status)
		require.Contains(t, said, "exit status 1")
	}
}

func TestWhatWasLeftByACrashIsRunAgainOnlyIfThatWasAskedFor(t *testing.T) {
	t.Parallel()
	for _, repeatable := range []bool{false, true} {
		t.Run(fmt.Sprint("takeover ", repeatable), func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			args := []string{"-store", "sqlite:" + filepath.Join(folder, "demo.db"), "-job", "report", "-period", period, "-ttl",
				"3s"}
			if repeatable {
				args = append(args, "-takeover")
			}
			begun := filepath.Join(folder, "begun")
			victim := exec.Command(binary,
				append(args[:len(args):len(args)], "--", "sh", "-c", "echo >"+begun+"; exec sleep 2")...)
			proctest.Watch(t, victim, "the victim")
			require.NoError(t, victim.Start())
			require.Eventually(t, func() bool {
				_, err := os.Stat(begun)
				return err == nil
			}, limit, 10*time.Millisecond)
			require.NoError(t, victim.Process.Kill())
			_ = victim.Wait()

			said, status := cron(t, append(args, "--", "true")...)
			if repeatable {
				require.Zero(t, status, said)
				require.Contains(t, said, "done here")
				return
			}
			require.Equal(t, 1, status, said)
			require.Contains(t, said, "abandoned")
		})
	}
}

func TestOnDynamoDB(t *testing.T) {
	if testing.Short() {
		t.Skip("needs DynamoDB Local: left out by -short")
	}
	endpoint, stop, err := dynamolocal.Start(t.Context())
	require.NoError(t, err)
	t.Cleanup(stop)
	t.Setenv("AWS_ENDPOINT_URL_DYNAMODB", endpoint)
	t.Setenv("AWS_REGION", dynamolocal.Region)
	t.Setenv("AWS_ACCESS_KEY_ID", dynamolocal.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", dynamolocal.SecretKey)
	args := []string{"-store", "dynamodb:cron", "-create-table", "-job", "report", "-period", period, "--", "true"}
	for _, want := range []string{"done here", "done before"} {
		said, status := cron(t, args...)
		require.Zero(t, status, said)
		require.Contains(t, said, want)
	}
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{}, {"-nonsense"}, {"-store", "memory", "-job", "j", "-period", "1h"},
		{"-store", "memory", "-job", "j", "-period", "-1h", "--", "true"},
		{"-store", "memory", "-job", "j", "-period", "1h", "-ttl", "1s", "--", "true"},
		{"-store", "redis:x", "-job", "j", "-period", "1h", "--", "true"},
	} {
		said, status := cron(t, args...)
		require.Equal(t, 2, status, said)
	}
}
