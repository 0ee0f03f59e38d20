package tests_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testedPages are those whose Go is cut out of tests, between lines that say
// "begin docs/..." and "end docs/...": it needs what the pages' module has not.
var testedPages = []string{"docs/adapters.md", "docs/migration.md", "docs/web.md"}

func TestTheGoOfTheAdaptersPagesIsThatOfTests(t *testing.T) {
	t.Parallel()
	block := regexp.MustCompile("(?s)```go\n(.*?)```")
	for _, page := range testedPages {
		text, err := os.ReadFile(filepath.Join(repository, page))
		require.NoError(t, err)
		var shown []string
		for _, b := range block.FindAllStringSubmatch(string(text), -1) {
			shown = append(shown, b[1])
		}
		tested := snippets(t, page)
		require.NotEmpty(t, tested)
		for _, s := range shown {
			require.Contains(t, tested, s, "%s: no test runs this", page)
		}
		for _, s := range tested {
			require.Contains(t, shown, s, "%s: a test runs what the page does not show", page)
		}
	}
}

// snippets returns what tests run for a page, with the indentation of their first
// lines taken off.
func snippets(t *testing.T, page string) (found []string) {
	t.Helper()
	name := regexp.QuoteMeta(page)
	cut := regexp.MustCompile(`(?s)\n(\t+)// begin ` + name + "\n(.*?)\n\t+// end " + name)
	places := []string{"adapters/*/example_test.go", "lock/example_*_test.go", "election/example_*_test.go",
		"web/example_test.go"}
	for _, pattern := range places {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, s := range cut.FindAllStringSubmatch(string(text), -1) {
				found = append(found, strings.TrimPrefix(strings.ReplaceAll("\n"+s[2], "\n"+s[1], "\n"), "\n")+"\n")
			}
		}
	}
	return found
}

// The table of the adapters page says with which versions they are tested.
func TestTheAdaptersPageNamesTheVersionsThatAreTested(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(repository, "docs/adapters.md"))
	require.NoError(t, err)
	for folder, module := range map[string]string{
		"gocron": "github.com/go-co-op/gocron/v2", "cron": "github.com/robfig/cron/v3",
		"certmagic": "github.com/caddyserver/certmagic",
	} {
		file, err := os.ReadFile(filepath.Join(repository, "adapters", folder, "go.mod"))
		require.NoError(t, err)
		version := regexp.MustCompile(regexp.QuoteMeta(module) + ` (v\S+)`).FindSubmatch(file)
		require.NotNil(t, version, folder)
		require.Contains(t, string(page), folder+" "+string(version[1]))
	}
	modules, err := filepath.Glob(filepath.Join(repository, "adapters/*/go.mod"))
	require.NoError(t, err)
	for _, module := range modules {
		require.Contains(t, string(page), "adapters/"+filepath.Base(filepath.Dir(module)))
	}
}

// Each module of go.work is one that make tests, and the other way round.
func TestMakeKnowsEveryModule(t *testing.T) {
	t.Parallel()
	work, err := os.ReadFile(filepath.Join(repository, "go.work"))
	require.NoError(t, err)
	var used []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+)$`).FindAllStringSubmatch(string(work), -1) {
		used = append(used, strings.TrimPrefix(m[1], "./"))
	}
	makefile, err := os.ReadFile(filepath.Join(repository, "Makefile"))
	require.NoError(t, err)
	made := regexp.MustCompile(`(?m)^MODULES := (.*)$`).FindStringSubmatch(string(makefile))
	require.NotNil(t, made)
	require.ElementsMatch(t, used, strings.Fields(made[1]))
	require.True(t, slices.Contains(used, "adapters/gocron"))
}
