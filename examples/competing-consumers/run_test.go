package main_test

import (
	"os"
	"path/filepath"
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

func TestWithoutJSONATableIsShown(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "-input", files(t, 5), "-json=false")
	var text strings.Builder
	for p.stdout.Scan() {
		text.WriteString(p.stdout.Text() + "\n")
	}
	require.NoError(t, p.Wait())
	for _, want := range []string{"5 of 5", "duplicates", "takeovers", "worker-1@", "requests: AtomicPut", "seconds"} {
		require.Contains(t, text.String(), want)
	}
}
