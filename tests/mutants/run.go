package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// failed finds the tests that failed in the output of go test, and died what is
// not a find although go test fails, unless a check has failed before.
var (
	failed = regexp.MustCompile(`(?m)^--- FAIL: (\w+)`)
	died   = regexp.MustCompile(`(?m)^(panic: |fatal error: |FAIL\s.*\[build failed\])`)
)

// result is what became of a mutant.
type result struct {
	found  string // the test that found it, "": none
	more   int    // how many others did
	err    error
	output string
	took   time.Duration
}

func (r result) verdict() string {
	if r.found == "" {
		return "SURVIVED"
	}
	return "found"
}

func (r result) foundBy() string {
	switch {
	case r.found == "":
		return "**nothing**"
	case r.more > 0:
		return fmt.Sprintf("`%s` and %d more", r.found, r.more)
	}
	return "`" + r.found + "`"
}

// run compiles the mutant in place of the library and runs the tests that must find it.
func (m *mutant) run(ctx context.Context, dir string) (r result) {
	began := time.Now()
	defer func() { r.took = time.Since(began) }()
	tmp, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return result{err: err}
	}
	defer func() { _ = os.RemoveAll(tmp) }()
	overlay, err := m.overlay(dir, tmp)
	if err != nil {
		return result{err: err}
	}
	output, err := goTest(ctx, dir, m.env, "-overlay="+overlay, "-failfast", "-run="+m.tests, m.pkg)
	r = result{err: err, output: tail(output)}
	tests := failed.FindAllStringSubmatch(output, -1)
	var exit *exec.ExitError
	switch {
	case err == nil:
		r.err = errors.New("its tests pass")
	case !errors.As(err, &exit) || dead(output) || len(tests) == 0:
		r.err = fmt.Errorf("its tests ended in another way: %w", err)
	default:
		r.found, r.more = tests[0][1], len(tests)-1
	}
	return r
}

// dead reports whether the tests ended before a check of theirs failed. A
// bubble that a failed check has left may panic afterwards.
func dead(output string) bool {
	at := died.FindStringIndex(output)
	return at != nil && !strings.Contains(output[:at[0]], "Error Trace:")
}

// overlay writes the changed files to tmp, and the file that tells the compiler of them.
func (m *mutant) overlay(dir, tmp string) (path string, err error) {
	sources, err := m.sources(dir)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, source := range sources {
		changed := filepath.Join(tmp, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(changed, []byte(source), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(dir, file)] = changed
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path = filepath.Join(tmp, "overlay.json")
	return path, os.WriteFile(path, text, 0o600)
}

// goTest runs go test in the short mode, in which no test of the layers needs
// more than the Go toolchain.
func goTest(ctx context.Context, dir string, env []string, args ...string) (output string, err error) {
	args = append([]string{"test", "-short", "-vet=off", "-ldflags=-s -w", "-timeout=2m"}, args...)
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir, command.Env = dir, append(os.Environ(), env...)
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	command.WaitDelay = 10 * time.Second
	text, err := command.CombinedOutput()
	return string(text), err
}

// healthy runs the tests of all mutants without any: a test that fails anyway finds nothing.
func healthy(ctx context.Context, dir string, mutants []*mutant, parallel int) error {
	type suite struct{ pkg, env, subtests string }
	tests := map[suite][]string{}
	var suites []suite
	for _, m := range mutants {
		s := suite{pkg: m.pkg, env: strings.Join(m.env, " ")}
		patterns := strings.Split(m.tests, "|")
		if strings.Contains(m.tests, "/") { // patterns of subtests cannot be joined
			s.subtests, patterns = m.tests, []string{m.tests}
		}
		if tests[s] == nil {
			suites = append(suites, s)
		}
		for _, pattern := range patterns {
			if !slices.Contains(tests[s], pattern) {
				tests[s] = append(tests[s], pattern)
			}
		}
	}
	errs := make([]error, len(suites))
	each(len(suites), parallel, func(i int) {
		s := suites[i]
		output, err := goTest(ctx, dir, strings.Fields(s.env), "-run="+strings.Join(tests[s], "|"), s.pkg)
		if err != nil {
			errs[i] = fmt.Errorf("%s fails without any mutant: %w\n%s", s.pkg, err, tail(output))
		}
	})
	return errors.Join(errs...)
}

// tail is the end of an output.
func tail(output string) string {
	const most = 3000
	return output[max(0, len(output)-most):]
}
