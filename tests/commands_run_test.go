//go:build unix

package tests_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
)

// scenario runs a command as people do: until it ends, or in two terminals, with ^C or kill -9.
type scenario func(t *testing.T, s *shell, command string)

func TestTheCommandsOfThePagesDoWhatTheySay(t *testing.T) {
	t.Parallel()
	var running sync.WaitGroup
	slots := make(chan struct{}, 6) // they mostly wait
	for command, h := range commands {
		if h.run == nil {
			continue
		}
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			t.Run(command, func(t *testing.T) {
				s := newShell(t)
				if strings.Contains(command, "dynamodb:") {
					s.onDynamoDB()
				}
				h.run(t, s, command)
			})
		})
	}
	running.Wait()
}

func ends(_ *testing.T, s *shell, command string) { s.start(command).ends() }

// sharesOut does what go run does, build and run, but in a folder whose files
// stand still: they are the entries.
func sharesOut(t *testing.T, s *shell, command string) {
	words := strings.Fields(command)
	require.Equal(t, []string{"go", "run"}, words[:2])
	folder := t.TempDir()
	binary := filepath.Join(t.TempDir(), "program")
	s.start("go build -o " + binary + " " + words[2]).ends()
	require.NoError(t, os.CopyFS(folder, os.DirFS(repository+"/docs")))
	s.folder = folder
	command = strings.Join(append([]string{binary}, words[3:]...), " ")
	var terminals []*process
	for range 1 + strings.Count(command, "sqlite:") { // the file is for two terminals
		terminals = append(terminals, s.start(command))
	}
	for _, p := range terminals {
		require.Regexp(t, `(?m)^\d+ files hashed exactly once by \d+ workers?`, p.ends())
	}
}

func leadersAreKilled(t *testing.T, s *shell, command string) {
	p := s.start(command)
	says := `leads; try kill -9 (\d+)`
	victim, err := strconv.Atoi(p.says(says)[1])
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(victim, syscall.SIGKILL))
	p.says(`(?s)` + says + `.*LEADS with token \d+: the leader before had died`)
	p.stops()
}

func leadersResign(_ *testing.T, s *shell, command string) {
	first := s.start(command)
	first.says("LEADS")
	second := s.start(command)
	second.says("campaigns")
	first.stops()
	second.says("LEADS")
	second.stops()
}

func servesInTwoTerminals(t *testing.T, s *shell, command string) {
	terminals := []*process{s.start(command), s.start(command)}
	for _, p := range terminals {
		url := p.says(`listens on (http://\S+)`)[1]
		require.Eventually(t, func() bool { // nobody leads in the beginning
			answer, err := http.Get(url) // curl
			if err != nil {
				return false
			}
			body, err := io.ReadAll(answer.Body)
			return err == nil && answer.Body.Close() == nil && answer.StatusCode == http.StatusOK &&
				strings.HasPrefix(string(body), "leader ")
		}, patience, 100*time.Millisecond, url)
	}
	for _, p := range terminals {
		p.stops()
	}
}

func runsOncePerPeriod(t *testing.T, s *shell, command string) {
	require.Contains(t, s.start(command).ends(), "sending the report\n")
	require.Contains(t, s.start(command).ends(), "report of ", "an hour may have begun since: done here or before")
}

func documents(_ *testing.T, s *shell, command string) {
	for _, pkg := range []string{"./kv", "./lease", "./lock", "./election", "./kv/dynamokv", "./kv/sqlkv", "./kv/memkv"} {
		s.start(strings.ReplaceAll(command, "./kv", pkg)).says("(?s)^package .*\nFUNCTIONS\n|\nTYPES\n")
	}
}

func lists(_ *testing.T, s *shell, command string) { s.start(command + " -list").says("sim +R") }

// What the README says: start DynamoDB Local, paste the line that it prints
// into another terminal, run the program.
func TestTheLockOnDynamoDBOfTheReadme(t *testing.T) {
	t.Parallel()
	dynamolocal.Endpoint(t) // is there, or this test is left out
	s := newShell(t)
	local := s.start("go run ./examples/dynamodb-local")
	s.env = append(s.env, strings.Fields(local.says("(?m)^export (AWS_ENDPOINT_URL_DYNAMODB=.*)$")[1])...)
	require.Contains(t, s.start("go run ./examples/dynamodb").ends(), "locked, with fencing token ")
	local.stops()
}

// What the README says: a module of one's own, beside the clone.
func TestAModuleOfOnesOwn(t *testing.T) {
	t.Parallel()
	s := newModule(t, packageOf(t, "README.md"))
	require.Contains(t, s.start("go run .").ends(), "locked, with fencing token ")
}

// What the operations page says to do about a lock that is stuck: here, an
// election whose leader lives.
func TestTheRunbookFindsAndBreaksALock(t *testing.T) {
	t.Parallel()
	s := newShell(t)
	s.onDynamoDB()
	const dynalock = "go run ./cmd/dynalock --store dynamodb:locks "
	leader := s.start("go run ./examples/leader-election -store dynamodb:locks -create-table -candidates 1 -ttl 15s")
	leader.says("LEADS")
	require.Regexp(t, `(?m)^election/demo +live `, s.start(dynalock+"ls").ends())
	require.Regexp(t, `(?m) 15s +election/demo$`, s.start(dynalock+"sessions").ends())
	require.Regexp(t, `(?m)^state +held, by a holder that has a session$`, s.start(dynalock+"show election/demo").ends())
	require.Contains(t, s.start(dynalock+"break --yes election/demo").ends(), "election/demo was taken from")
	leader.says("revoked")
	leader.says("(?s)LEADS.*LEADS")
	leader.stops()
}

// packageOf returns the program that a page shows in full.
func packageOf(t *testing.T, page string) string {
	t.Helper()
	program := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindStringSubmatch(pages(t)[page])
	require.NotNil(t, program)
	return program[1]
}

// newModule is a shell in a module of one's own with the program, made as the
// README says. It takes the versions of ../examples/go.mod, so that nothing has
// to be fetched that is not here already.
func newModule(t *testing.T, program string) *shell {
	t.Helper()
	s := newShell(t)
	root := s.folder
	s.folder = t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(s.folder, "main.go"), []byte(program), 0o600))
	s.start("go mod init example.com/mine").ends()
	edit := "go mod edit"
	versions, err := os.ReadFile(repository + "/examples/go.mod")
	require.NoError(t, err)
	requirement := regexp.MustCompile(`(?m)^\t(\S+) (v[1-9]\S*|v0\.[1-9]\S*)`)
	for _, r := range requirement.FindAllStringSubmatch(string(versions), -1) {
		edit += " -require=" + r[1] + "@" + r[2]
	}
	s.start(edit).ends()
	sums, err := os.ReadFile(repository + "/examples/go.sum")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(s.folder, "go.sum"), sums, 0o600))
	s.start(strings.ReplaceAll("go mod edit -replace github.com/dynalock/dynalock=../dynalock", "../dynalock",
		root)).ends()
	s.start("go mod tidy").ends()
	return s
}
