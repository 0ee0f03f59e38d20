//go:build unix

package patterns_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/proctest"
)

// patience is how long a program may take, on a machine that does much else.
const patience = 2 * time.Minute

// binaries is the folder of the built programs: signals reach them themselves,
// not go run.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "patterns-test-")
		if err != nil {
			panic(err)
		}
		defer func() { _ = os.RemoveAll(folder) }()
		binaries = folder
		if out, err := exec.Command("go", "build", "-o", folder+"/", "./...").CombinedOutput(); err != nil {
			panic(string(out))
		}
		return m.Run()
	}())
}

// machine is where programs run: programs that have one folder for temporary
// files, and so one store.
type machine struct {
	t         *testing.T
	temporary string
}

func newMachine(t *testing.T) *machine { return &machine{t, t.TempDir()} }

// program is one that runs, and what it has said so far.
type program struct {
	*proctest.Words
	t   *testing.T
	cmd *exec.Cmd
}

func (m *machine) start(name string) *program {
	m.t.Helper()
	p := &program{t: m.t, cmd: exec.CommandContext(m.t.Context(), filepath.Join(binaries, name))}
	p.cmd.Env = append(os.Environ(), "TMPDIR="+m.temporary)
	p.Words = proctest.Watch(m.t, p.cmd, name)
	require.NoError(m.t, p.cmd.Start())
	return p
}

// awaits waits until the program has said text.
func (p *program) awaits(text string) {
	p.t.Helper()
	require.Eventually(p.t, func() bool { return strings.Contains(p.String(), text) }, patience, 10*time.Millisecond, text)
}

// ends waits for the end, requires that all went well, and returns what the
// program has said.
func (p *program) ends() string {
	p.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case err := <-ended:
		require.NoError(p.t, err)
	case <-time.After(patience):
		require.Fail(p.t, "it does not end")
	}
	return p.String()
}

// stops is ^C.
func (p *program) stops() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGINT))
	p.ends()
}

func TestTwoCrawlersFetchEachPageOnceAndNoMoreThanTwoASecond(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	began := time.Now()
	both := []*program{m.start("crawler"), m.start("crawler")}
	said := both[0].ends() + both[1].ends()
	require.GreaterOrEqual(t, time.Since(began), 3*time.Second, "eight pages, two a second")
	pages := map[string]int{}
	for _, found := range regexp.MustCompile(`fetches (\S+)`).FindAllStringSubmatch(said, -1) {
		pages[found[1]]++
	}
	require.Len(t, pages, 8)
	for page, n := range pages {
		require.Equal(t, 1, n, page)
	}
	require.NotContains(t, m.start("crawler").ends(), "fetches")
}

func TestEachDeliveryOfAnEventGetsTheSameAnswer(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	both := []*program{m.start("webhook"), m.start("webhook")}
	said := both[0].ends() + both[1].ends() + m.start("webhook").ends()
	require.Equal(t, 1, strings.Count(said, "books evt-1"))
	answers := regexp.MustCompile(`answer: .*`).FindAllString(said, -1)
	require.Len(t, answers, 9)
	for _, answer := range answers {
		require.Equal(t, answers[0], answer)
	}
	require.Contains(t, answers[0], `"Event":"evt-1"`)
}

func TestTheRegistryShowsWhoLives(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	watcher := m.start("registry")
	watcher.awaits(fmt.Sprintf("registered: [%s]", watcher.address()))
	other := m.start("registry")
	other.awaits(other.address())
	watcher.awaits(other.address())
	stays, killed := len(watcher.String()), m.start("registry")
	watcher.awaits(killed.address())
	require.NoError(t, killed.cmd.Process.Kill())
	_ = killed.cmd.Wait()
	other.stops()
	alone := fmt.Sprintf("registered: [%s]", watcher.address())
	require.Eventually(t, func() bool { return strings.Contains(watcher.String()[stays:], alone) }, patience,
		10*time.Millisecond)
	watcher.stops()
}

func (p *program) address() string { return fmt.Sprintf("10.0.0.1:%d", p.cmd.Process.Pid) }

func TestTheStepsOfAMigrationAreTakenOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	said := ""
	for _, p := range []*program{m.start("migration"), m.start("migration"), m.start("migration")} {
		said += p.ends()
	}
	require.Equal(t, 3, strings.Count(said, "migrates: "))
	require.Equal(t, 3, strings.Count(said, "starts with version 3"))
	require.Less(t, strings.LastIndex(said, "migrates: "), strings.LastIndex(said, "starts with"))
}

func TestNobodyReadsACacheThatIsBeingRebuilt(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	both := []*program{m.start("cache"), m.start("cache")}
	said := both[0].ends() + both[1].ends()
	require.Equal(t, 40, strings.Count(said, `read "whole"`), said)
	require.Contains(t, said, "rebuilt it")
}
