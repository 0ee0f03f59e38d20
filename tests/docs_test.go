package tests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// repository is the root, by a symbolic link: go test takes a result from its
// cache unless a file has changed that the test opened by a name inside its own
// module. By "../README.md" a broken page would go on passing.
const repository = "testdata/repository"

// pages are those that people follow: what they tell to run is run
// (commands_test.go), what they show compiles, and their links lead somewhere.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "*/*.md", "*/*/*.md", ".github/*.md", ".github/*/*.md"} {
		files, err := filepath.Glob(filepath.Join(repository, pattern))
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			texts[strings.TrimPrefix(file, repository+"/")] = string(text)
		}
	}
	require.Contains(t, texts, "README.md")
	require.Contains(t, texts, "docs/operations.md")
	require.Contains(t, texts, "examples/competing-consumers/README.md")
	return texts
}

func TestTheLinksOfThePagesLeadSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ (.*)$`)
	texts := pages(t)
	for name, text := range texts {
		for _, l := range link.FindAllStringSubmatch(text, -1) {
			target, anchor, _ := strings.Cut(l[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			path := name
			if target != "" {
				path = filepath.Join(filepath.Dir(name), target)
			}
			_, err := os.Stat(filepath.Join(repository, path))
			require.NoError(t, err, "%s: %s", name, l[1])
			if anchor == "" {
				continue
			}
			var anchors []string
			for _, h := range heading.FindAllStringSubmatch(texts[path], -1) {
				anchors = append(anchors,
					strings.ReplaceAll(regexp.MustCompile(`[^\p{L}\p{N} -]`).ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
			}
			require.Contains(t, anchors, anchor, "%s: %s", name, l[1])
		}
	}
}

func TestTheQuickStartIsTheProgramThatIsTested(t *testing.T) {
	t.Parallel()
	program, err := os.ReadFile(repository + "/examples/quickstart/main.go")
	require.NoError(t, err)
	_, program, _ = bytes.Cut(program, []byte("package main\n"))
	require.Contains(t, pages(t)["README.md"], "```go\npackage main\n"+string(program)+"```\n")
}

func TestTheFrontPageStaysShort(t *testing.T) {
	t.Parallel()
	readme := pages(t)["README.md"]
	require.LessOrEqual(t, len(strings.Fields(readme)), 1500, "words: move what is too much to a page of docs")
	rows := regexp.MustCompile(`(?m)^\|`).FindAllString(readme, -1)
	require.LessOrEqual(t, len(rows), 15, "rows of tables")
	requireNarrow(t, "README.md", readme)
	screen := strings.SplitAfterN(readme, "\n", 21)
	for _, command := range []string{"go run ./examples/competing-consumers", "make test"} {
		require.Contains(t, strings.Join(screen[:20], ""), command, "the first screen says what to run")
	}
}

func TestTheVerificationPageStaysShort(t *testing.T) {
	t.Parallel()
	page := pages(t)["docs/verification.md"]
	require.LessOrEqual(t, len(strings.Fields(page)), 1500, "words")
}

// Prose that wraps can be reviewed line by line. Tables cannot wrap, nor can a
// long link.
func TestTheProseOfThePagesWraps(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"docs/guarantees.md", "docs/choosing.md", "docs/faq.md", "docs/metrics.md", "docs/comparison.md",
		"docs/verification.md",
		"docs/adapters.md", "docs/migration.md", "docs/web.md",
		"examples/README.md", "examples/competing-consumers/README.md", "tests/model/README.md", "tests/mutants/README.md",
	} {
		requireNarrow(t, name, regexp.MustCompile(`(?m)^(\|.*|\s*\S+)$`).ReplaceAllString(pages(t)[name], ""))
	}
}

// requireNarrow requires that no line is wider than 120 columns.
func requireNarrow(t *testing.T, page, text string) {
	t.Helper()
	for i, line := range strings.Split(text, "\n") {
		require.LessOrEqual(t, utf8.RuneCountInString(strings.ReplaceAll(line, "\t", "    ")), 120, "%s:%d: %s", page, i+1,
			line)
	}
}

// preamble is what the fragments of the pages take for granted. It is no
// program: nothing is linked.
const preamble = `package page

import (
	"context"
	"database/sql"
	"errors"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/kv/sqlkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
	"github.com/dynalock/dynalock/metrics"
)

var (
	ctx    = context.Background()
	db     *dynamodb.Client
	store  kv.Store
	client *lease.Client
	counts *metrics.Metrics
	report func(context.Context, *lease.Lease) error
	err    error
	ran    bool
	_      = errors.Is
	_      = log.Println
	_      = os.Getenv
	_      = slog.Default
	_      = dynamokv.New
	_      = memkv.New
	_      = pgkv.New
	_      = sqlkv.Open
	_      = sql.Open
	_      = config.LoadDefaultConfig
	_      = time.Now
	_      = lock.NewMutex
)

`

// TestTheGoOfThePagesCompiles builds each fragment as the body of a function,
// in a module that has what programs have.
func TestTheGoOfThePagesCompiles(t *testing.T) {
	t.Parallel()
	module, err := filepath.Abs("../examples")
	require.NoError(t, err)
	overlay := map[string]map[string]string{"Replace": {}}
	var packages []string
	block := regexp.MustCompile("(?s)```go\n(.*?)```")
	texts := pages(t)
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if name == "docs/drivers.md" || slices.Contains(testedPages, name) { // tests have their text
			continue
		}
		for i, b := range block.FindAllStringSubmatch(texts[name], -1) {
			source := b[1]
			if !strings.HasPrefix(source, "package ") {
				source = preamble + "func _() error {\n" + source + "\t_, _, _ = client, ran, err\n\treturn nil\n}\n"
			}
			file := filepath.Join(t.TempDir(), "main.go")
			require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
			pkg := fmt.Sprintf("%s-%d", strings.ToLower(strings.NewReplacer("/", "-", ".", "-").Replace(name)), i)
			overlay["Replace"][filepath.Join(module, pkg, "main.go")] = file
			packages = append(packages, "./"+pkg)
		}
	}
	require.NotEmpty(t, packages)
	text, err := json.Marshal(overlay)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "overlay.json")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	cmd := exec.Command("go", append([]string{"build", "-o", os.DevNull, "-overlay", file}, packages...)...)
	cmd.Dir = module
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
