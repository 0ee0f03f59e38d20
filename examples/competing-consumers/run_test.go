package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestEveryEntryGetsOneResult(t *testing.T) {
	t.Parallel()
	for _, store := range []string{"sqlite", "memory", "sqlite:" + filepath.Join(t.TempDir(), "kept.db")} {
		t.Run(strings.SplitAfter(store, ":")[0], func(t *testing.T) {
			t.Parallel()
			temporary := t.TempDir()
			p := start(t, []string{"TMPDIR=" + temporary}, "-input", files(t, 20), "-store", store, "-work", "20ms")
			summary := p.complete(t, 20)
			require.Len(t, summary.Workers, 3)
			require.Zero(t, summary.Takeovers)
			require.Positive(t, summary.Requests["AtomicPut"])
			requireEmpty(t, temporary)
		})
	}
}

func TestTheOthersTakeUpTheSlackOfAKilledWorker(t *testing.T) {
	t.Parallel()
	const ttl = 3 * time.Second
	p := start(t, nil, "-input", files(t, 20), "-crash", "-ttl", ttl.String(), "-work", "50ms")
	paused := p.await(t, "paused")
	killed := p.await(t, "killed")
	require.Equal(t, paused.Worker, killed.Worker)
	var takenOver line
	for takenOver.Entry != paused.Entry {
		takenOver = p.await(t, "acquired")
	}
	require.NotEqual(t, killed.Worker, takenOver.Worker)
	passed := time.Duration(takenOver.At - killed.At)
	t.Logf("the lock passed on %v after the kill, with a TTL of %v", passed, ttl)
	require.Greater(t, passed, ttl/2)
	require.Less(t, passed, 2*ttl+5*time.Second, "and what a loaded machine takes")

	summary := p.complete(t, 20)
	require.Positive(t, summary.Takeovers)
	require.Equal(t, []string{killed.Worker}, summary.Killed)
}

func TestASecondProcessSharesTheWork(t *testing.T) {
	t.Parallel()
	folder := files(t, 60)
	// The store lies among the entries: it is not one.
	flags := []string{"-input", folder, "-store", "sqlite:" + filepath.Join(folder, "store.db"), "-work", "50ms"}
	first := start(t, nil, flags...)
	first.await(t, "done")
	second := start(t, nil, flags...)
	second.await(t, "done")

	one, two := first.complete(t, 60), second.complete(t, 60)
	require.Equal(t, two.Workers, withoutIdle(one.Workers, two.Workers))
	require.Len(t, two.Workers, 6)
}

// withoutIdle adds to a the workers that only b knows, because they did nothing.
func withoutIdle(a, b map[string]int) map[string]int {
	for name, n := range b {
		if _, ok := a[name]; !ok && n == 0 {
			a[name] = 0
		}
	}
	return a
}

func TestRunsOnOtherFoldersAreNotDisturbed(t *testing.T) {
	t.Parallel()
	store := "sqlite:" + filepath.Join(t.TempDir(), "store.db")
	first := start(t, nil, "-input", files(t, 30), "-store", store, "-work", "50ms")
	first.await(t, "done")
	second := start(t, nil, "-input", files(t, 10), "-store", store)
	second.complete(t, 10)
	first.complete(t, 30)
}

func TestAnEarlierRunsResultsStayUnlessAFileHasChanged(t *testing.T) {
	t.Parallel()
	folder := files(t, 10)
	flags := []string{"-input", folder, "-store", "sqlite:" + filepath.Join(t.TempDir(), "store.db")}
	start(t, nil, flags...).complete(t, 10)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "000"), []byte("changed"), 0o600))

	p := start(t, nil, flags...)
	require.Equal(t, "000", p.await(t, "done").Entry)
	for {
		l, ok := p.next(t)
		require.True(t, ok)
		require.NotEqual(t, "done", l.Event)
		if l.Event == "summary" {
			require.True(t, l.Complete)
			require.Zero(t, l.Duplicates)
			break
		}
	}
	_, status := p.end(t)
	require.Zero(t, status)
}

func TestAnUnreadableFileFailsTheRun(t *testing.T) {
	t.Parallel()
	folder := files(t, 3)
	p := start(t, nil, "-input", folder, "-work", "300ms", "-workers", "1")
	first := p.await(t, "acquired")
	for i, name := range []string{"000", "a/001", "b ü/002"} {
		if name != first.Entry {
			require.NoError(t, os.Remove(filepath.Join(folder, name)), i)
		}
	}
	_, status := p.end(t)
	require.Equal(t, 1, status)
	require.Contains(t, p.stderr.String(), "1 of 3 entries")
}

func TestOfFoldersWithOneNameEachKeepsItsEntries(t *testing.T) {
	t.Parallel()
	store := "sqlite:" + filepath.Join(t.TempDir(), "store.db")
	one, other := filepath.Join(files(t, 30), "a"), filepath.Join(files(t, 10), "a") // 10 files and 3
	first := start(t, nil, "-input", one, "-store", store, "-work", "200ms")
	first.await(t, "done")
	start(t, nil, "-input", other, "-store", store).complete(t, 3)
	first.complete(t, 10)
}

func TestFoldersShareEntriesByName(t *testing.T) {
	t.Parallel()
	store := "sqlite:" + filepath.Join(t.TempDir(), "store.db")
	one, other := files(t, 10), files(t, 10)
	start(t, nil, "-input", one, "-store", store, "-name", "mails").complete(t, 10)
	p := start(t, nil, "-input", other, "-store", store, "-name", "mails")
	for {
		l, ok := p.next(t)
		require.True(t, ok)
		require.NotEqual(t, "done", l.Event, "the results are there")
		if l.Event == "summary" {
			break
		}
	}
	_, status := p.end(t)
	require.Zero(t, status)
}

// story runs the program without -json to its end, and returns its lines.
func (p *program) story(t *testing.T) (lines []string) {
	t.Helper()
	for p.stdout.Scan() {
		require.NotContains(t, p.stdout.Text(), "\x1b", "no terminal, no escapes")
		lines = append(lines, p.stdout.Text())
	}
	require.NoError(t, p.Wait())
	require.Empty(t, p.stderr.String())
	return lines
}

func TestPeopleAreToldAStory(t *testing.T) {
	t.Parallel()
	folder := files(t, 20)
	lines := start(t, nil, "-json=false", "-input", folder, "-crash", "-ttl", "3s").story(t)
	text := strings.Join(lines, "\n")
	require.Equal(t, "20 files in "+filepath.Base(folder)+", 3 workers. Each file is locked, hashed and unlocked.",
		lines[0])
	words := regexp.MustCompile(`worker-1 is killed in the middle of \S.*, with (\d+) files? locked`)
	killed := words.FindStringSubmatch(text)
	require.NotNil(t, killed, text)
	require.Regexp(t, `worker-[23] takes over from worker-1, first \S`, text)
	require.Regexp(t, `(?m)^  worker-1 +1 file  killed$`, text)
	require.Regexp(t, `^20 files hashed exactly once by [123] workers?; one was killed, `+killed[1]+
		` of its files (was|were) taken over\.$`,
		lines[len(lines)-2])
}

func TestTwoTerminalsAgree(t *testing.T) {
	t.Parallel()
	flags := []string{"-json=false", "-input", files(t, 60), "-store", "sqlite:" + filepath.Join(t.TempDir(), "store.db"),
		"-work", "50ms", "-ttl", "3s"}
	first := start(t, nil, append(flags, "-crash")...)
	for !strings.Contains(first.stdout.Text(), "is killed") {
		require.True(t, first.stdout.Scan())
	}
	one, two := make(chan []string), start(t, nil, flags...)
	go func() {
		var lines []string
		for first.stdout.Scan() {
			lines = append(lines, first.stdout.Text())
		}
		one <- lines
	}()
	told := two.story(t)
	require.Contains(t, strings.Join(told, "\n"), "of another run, has died with")
	ending := func(lines []string) (table []string, sentence string) {
		for _, line := range lines {
			// who did nothing is known at home only
			if strings.HasPrefix(line, "  worker-") && !strings.HasSuffix(line, " 0 files") {
				table = append(table, line)
			}
		}
		return table, lines[len(lines)-2]
	}
	lines := <-one
	require.NoError(t, first.Wait())
	table, sentence := ending(lines)
	otherTable, otherSentence := ending(told)
	require.Equal(t, table, otherTable)
	require.Equal(t, sentence, otherSentence)
	require.Regexp(t,
		`^60 files hashed exactly once by \d workers?; one was killed, \d+ of its files (was|were) taken over\.$`, sentence)
}

func TestTheHelpListsTheFlagsThatAreForPeople(t *testing.T) {
	t.Parallel()
	help := strings.Join(start(t, nil, "-h").story(t), "\n")
	require.Contains(t, help, "-crash")
	require.NotContains(t, help, "internal")
	require.NotContains(t, help, "-worker ")
	for _, line := range strings.Split(help, "\n") {
		require.LessOrEqual(t, len(strings.ReplaceAll(line, "\t", "    ")), 80, line)
	}
}
