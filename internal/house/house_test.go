package house_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	module      = "github.com/dynalock/dynalock"
	goDirective = "go 1.26.0"
)

// layers says which of our own packages a package may depend on, directly or
// not, outside its tests. A name that ends in "/" stands for all below it; the
// first entry that matches a package is its layer.
var layers = []struct {
	pkg    string
	mayUse []string
}{
	{"internal/", []string{""}}, // judged through the packages that use it
	{"kv", []string{"internal/"}},
	{"kv/", []string{"internal/", "kv"}},
	{"lease", []string{"internal/", "kv"}},
	{"lock", []string{"internal/", "kv", "lease"}},
	{"election", []string{"internal/", "kv", "lease"}},
	{"pool", []string{"internal/", "kv", "lease"}},
	{"metrics", []string{"internal/", "kv", "lease", "pool"}},
}

// directDependencies is all that the root module may ask of its users.
var directDependencies = []string{
	"github.com/aws/aws-sdk-go-v2",
	"github.com/aws/aws-sdk-go-v2/service/dynamodb",
	"github.com/aws/smithy-go",
	"github.com/cenkalti/backoff/v4",
	"github.com/stretchr/testify",
	"golang.org/x/sync",
}

func TestEveryModuleNamesTheSameGo(t *testing.T) {
	t.Parallel()
	files := tracked(t, "go.work", "go.mod", "*/go.mod")
	require.Contains(t, files, "go.work")
	require.Contains(t, files, "go.mod")
	directive := regexp.MustCompile(`(?m)^(go|toolchain) .*$`)
	for _, file := range files {
		require.Equal(t, []string{goDirective}, directive.FindAllString(read(t, file), -1), file)
	}
}

func TestPackagesDependOnlyOnLowerLayers(t *testing.T) {
	t.Parallel()
	for line := range strings.Lines(run(t, "go", "list", "-f", `{{.ImportPath}} {{join .Deps " "}}`, "./...")) {
		pkg, deps, _ := strings.Cut(strings.TrimSpace(line), " ")
		pkg = strings.TrimPrefix(pkg, module+"/")
		mayUse, known := layerOf(pkg)
		require.True(t, known, "package %s has no layer: add it to layers and to .golangci.yml", pkg)
		for _, dep := range strings.Fields(deps) {
			if dep, ours := strings.CutPrefix(dep, module+"/"); ours {
				require.True(t, matchesAny(dep, mayUse), "package %s depends on %s, which is not below it", pkg, dep)
			}
		}
	}
}

func TestTheRootModuleHasNoOtherDirectDependency(t *testing.T) {
	t.Parallel()
	var file struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	require.NoError(t, json.Unmarshal([]byte(run(t, "go", "mod", "edit", "-json", "go.mod")), &file))
	require.NotEmpty(t, file.Require)
	for _, dependency := range file.Require {
		if !dependency.Indirect {
			require.Contains(t, directDependencies, dependency.Path)
		}
	}
}

func TestNoFileNamesAPathOfOneMachine(t *testing.T) {
	t.Parallel()
	path := regexp.MustCompile(`(^|[^\w.~})-])/(work|root)/`)
	for _, file := range tracked(t) {
		text := read(t, file)
		if !strings.Contains(text, "/"+"work/") && !strings.Contains(text, "/"+"root/") {
			continue // an expression on every line of every file takes seconds
		}
		for i, line := range strings.Split(text, "\n") {
			require.False(t, path.MatchString(line), "%s:%d: %s", file, i+1, line)
		}
	}
}

func layerOf(pkg string) (mayUse []string, known bool) {
	for _, layer := range layers {
		if matches(pkg, layer.pkg) {
			return layer.mayUse, true
		}
	}
	return nil, false
}

func matchesAny(pkg string, patterns []string) bool {
	for _, pattern := range patterns {
		if matches(pkg, pattern) {
			return true
		}
	}
	return false
}

// matches says whether pkg is pattern or, if that is empty or ends in "/", below it.
func matches(pkg, pattern string) bool {
	if pattern == "" || strings.HasSuffix(pattern, "/") {
		return strings.HasPrefix(pkg, pattern)
	}
	return pkg == pattern
}

// root returns the top of the checkout. It skips the test where there is none:
// in the module cache of a user, files of other modules are missing.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(dir, ".git")); err != nil {
		t.Skip("not a git checkout: ", err)
	}
	return dir
}

// tracked returns the files that git tracks and that are there, from the root.
func tracked(t *testing.T, patterns ...string) []string {
	t.Helper()
	dir := root(t)
	// What a command reads is unknown to go test's cache; this makes a changed
	// list of files known to it, and read below makes their contents known.
	_, _ = os.Stat(filepath.Join(dir, ".git", "index"))
	var files []string
	for file := range strings.SplitSeq(run(t, "git", append([]string{"ls-files", "-z", "--"}, patterns...)...), "\x00") {
		if info, err := os.Stat(filepath.Join(dir, file)); err == nil && info.Mode().IsRegular() {
			files = append(files, file)
		}
	}
	require.NotEmpty(t, files)
	return files
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root(t), file))
	require.NoError(t, err)
	return string(content)
}

// run returns the output of a command run at the root.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	command := exec.Command(name, args...)
	command.Dir = root(t)
	command.Stderr = &stderr
	output, err := command.Output()
	require.NoError(t, err, "%s %s: %s", name, strings.Join(args, " "), &stderr)
	return string(output)
}
