//go:build unix

package tests_test

import (
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/proctest"
)

// patience is how long a command may take, on a machine that does much else.
const patience = 4 * time.Minute

// shell starts commands in a folder, that of the repository to begin with.
type shell struct {
	t      *testing.T
	folder string
	env    []string
	demo   string // stands for /tmp/demo.db
}

func newShell(t *testing.T) *shell {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	// What the commands run is no part of this test's module: see repository.
	require.NoError(t, filepath.WalkDir(repository+"/examples",
		func(_ string, _ os.DirEntry, err error) error { return err }))
	scratch := t.TempDir()
	return &shell{t: t, folder: root, env: append(os.Environ(), "TMPDIR="+scratch),
		demo: filepath.Join(scratch, "demo.db")}
}

// onDynamoDB gives the commands a database of their own, which DynamoDB Local
// has for each access key. Under -short it skips the test.
func (s *shell) onDynamoDB() {
	s.t.Helper()
	s.env = append(s.env, "AWS_ENDPOINT_URL_DYNAMODB="+dynamolocal.Endpoint(s.t),
		"AWS_REGION="+dynamolocal.Region, "AWS_ACCESS_KEY_ID="+rand.Text(), "AWS_SECRET_ACCESS_KEY="+dynamolocal.SecretKey)
}

// process is a command in a terminal of its own.
type process struct {
	t       *testing.T
	command string
	cmd     *exec.Cmd
	words   *proctest.Words
	ended   chan error
}

// start starts a command in a process group of its own, which ends with the test.
func (s *shell) start(command string) *process {
	s.t.Helper()
	p := &process{t: s.t, command: command, ended: make(chan error, 1)}
	p.cmd = exec.Command("sh", "-c", "exec "+strings.ReplaceAll(command, "/tmp/demo.db", s.demo))
	p.cmd.Dir, p.cmd.Env = s.folder, s.env
	p.words = proctest.Watch(s.t, p.cmd, command)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(s.t, p.cmd.Start(), command)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		p.ended <- p.cmd.Wait()
	}()
	s.t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // an error means that all of it has ended
		<-stopped
	})
	return p
}

// says waits until the process has said something that matches, and returns the
// match and its groups.
func (p *process) says(pattern string) []string {
	p.t.Helper()
	expression := regexp.MustCompile(pattern)
	var found []string
	said := func() bool {
		found = expression.FindStringSubmatch(p.words.String())
		return found != nil
	}
	deadline := time.Now().Add(patience)
	for !said() && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	require.NotNil(p.t, found, "%s does not say %s", p.command, pattern)
	return found
}

// ends waits for the end, requires that all went well, and returns what the process has said.
func (p *process) ends() string {
	p.t.Helper()
	require.NoError(p.t, p.wait(), p.command)
	return p.words.String()
}

// stops is ^C. The status of go run is that of an interrupt then, whatever its
// program's was: it says so if that was not 0.
func (p *process) stops() {
	p.t.Helper()
	require.NoError(p.t, syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT), p.command)
	_ = p.wait()
	require.NotContains(p.t, p.words.String(), "exit status", p.command)
}

func (p *process) wait() (err error) {
	p.t.Helper()
	select {
	case err = <-p.ended:
	case <-time.After(patience):
		require.Fail(p.t, "it does not end", p.command)
	}
	return err
}
