//go:build unix

package recipes_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/proctest"
)

// patience is how long a recipe may take, on a machine that does much else.
const patience = 2 * time.Minute

// binaries is the folder of the built programs: signals reach them themselves,
// not go run.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		folder, err := os.MkdirTemp("", "recipes-test-")
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

// machine is where recipes run: programs that have one folder for temporary
// files, and so one store.
type machine struct {
	t         *testing.T
	temporary string
}

func newMachine(t *testing.T) *machine { return &machine{t, t.TempDir()} }

// program is a recipe that runs, and what it has said so far.
type program struct {
	*proctest.Words
	t   *testing.T
	cmd *exec.Cmd
}

func (m *machine) start(recipe string) *program {
	m.t.Helper()
	p := &program{t: m.t, cmd: exec.CommandContext(m.t.Context(), filepath.Join(binaries, recipe))}
	p.cmd.Env = append(os.Environ(), "TMPDIR="+m.temporary)
	p.Words = proctest.Watch(m.t, p.cmd, recipe)
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

func TestTheSecondProcessWaitsForTheLock(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	first := m.start("lock")
	first.awaits("works, with fencing token")
	second := m.start("lock")
	second.awaits("waits for the lock")
	first.ends()
	require.Contains(t, second.ends(), "works, with fencing token")
}

func TestTheReportOfANightIsWrittenOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	var hosts []*program
	for range 3 {
		hosts = append(hosts, m.start("once"))
	}
	written := map[string]bool{}
	for _, host := range append(hosts, m.start("once")) {
		said := host.ends()
		if night, here := strings.CutPrefix(said, "writes the report of "); here {
			require.False(t, written[night], "twice: %s", night)
			written[night] = true
			continue
		}
		require.Contains(t, said, "somebody has written the report of ")
	}
	require.NotEmpty(t, written)
}

func TestAnotherProcessLeadsWhenTheLeaderStops(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	first := m.start("leader")
	first.awaits("leads, with fencing token")
	second := m.start("leader")
	second.awaits("campaigns")
	require.NotContains(t, second.String(), "leads")
	first.stops()
	second.awaits("leads, with fencing token")
	second.stops()
}

func TestEachJobIsDoneOnce(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	both := []*program{m.start("jobs"), m.start("jobs")}
	lines := slices.Sorted(strings.Lines(both[0].ends() + both[1].ends()))
	require.Equal(t, []string{
		"does anna\n", "does bob\n", "does carla\n",
		"does dave\n", "does eve\n", "does frank\n",
	}, lines)
	require.Empty(t, m.start("jobs").ends(), "nothing is left to do")
}

func TestNoChangeOfTheSettingsIsLost(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	said := ""
	for _, p := range []*program{m.start("settings"), m.start("settings"), m.start("settings")} {
		said += p.ends()
	}
	require.Equal(t, []string{
		"settings: {\"MailsPerMinute\":11}\n", "settings: {\"MailsPerMinute\":12}\n", "settings: {\"MailsPerMinute\":13}\n",
	}, slices.Sorted(strings.Lines(said)))
}

// A recipe can be read at a glance: its functions have twenty lines of body
// together, but for main, which only opens the store.
func TestARecipeHasTwentyLines(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*/main.go")
	require.NoError(t, err)
	require.Len(t, files, 5)
	for _, file := range files {
		positions := token.NewFileSet()
		syntax, err := parser.ParseFile(positions, file, nil, 0)
		require.NoError(t, err)
		lines := 0
		for _, declaration := range syntax.Decls {
			if f, ok := declaration.(*ast.FuncDecl); ok && f.Name.Name != "main" {
				lines += positions.Position(f.Body.Rbrace).Line - positions.Position(f.Body.Lbrace).Line - 1
			}
		}
		require.LessOrEqual(t, lines, 20, file)
	}
}
