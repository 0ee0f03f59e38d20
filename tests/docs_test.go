package tests_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// repository is the root, by a symbolic link: go test takes a result from its
// cache unless a file has changed that the test opened by a name inside its own
// module. By "../README.md" a broken page would go on passing.
const repository = "testdata/repository"

// pages are those that people follow: what they tell to run is run (commands_test.go), what they show compiles, and their links lead somewhere.
func pages(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "infra/*.md", "examples/*.md", ".github/*.md", ".github/*/*.md"} {
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
				anchors = append(anchors, strings.ReplaceAll(regexp.MustCompile(`[^\p{L}\p{N} -]`).ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
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

// preamble is what the fragments of the pages take for granted.
const preamble = `package main

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"os"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

var (
	ctx    = context.Background()
	db     *dynamodb.Client
	store  kv.Store
	client *lease.Client
	events metric
	_      = errors.Is
	_      = log.Println
	_      = os.Getenv
	_      = slog.Default
	_      = dynamokv.New
	_      = lock.NewMutex
)

type metric struct{}

func (metric) WithLabelValues(string) metric { return metric{} }
func (metric) Inc()                          {}

func main() {}

`

// TestTheGoOfThePagesCompiles builds each fragment as the body of a function, in a module that has what programs have.
func TestTheGoOfThePagesCompiles(t *testing.T) {
	t.Parallel()
	module, err := filepath.Abs("../examples")
	require.NoError(t, err)
	overlay := map[string]map[string]string{"Replace": {}}
	var packages []string
	block := regexp.MustCompile("(?s)```go\n(.*?)```")
	texts := pages(t)
	for _, name := range []string{"README.md", "docs/operations.md"} {
		for i, b := range block.FindAllStringSubmatch(texts[name], -1) {
			source := b[1]
			if !strings.HasPrefix(source, "package ") {
				source = preamble + "func _() error {\n" + source + "\t_ = client\n\treturn nil\n}\n"
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
	for _, pkg := range packages {
		cmd := exec.Command("go", "build", "-o", os.DevNull, "-overlay", file, pkg)
		cmd.Dir = module
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s: %s", pkg, out)
	}
}
