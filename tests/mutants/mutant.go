package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mutant is one bug.
type mutant struct {
	name, rule, layer string
	// The package and the pattern of the tests that must find it, and their environment.
	pkg, tests string
	env        []string
	edits      []edit
}

// edit is a text of a file, which is named from the root, and the one that takes its place.
type edit struct{ file, old, new string }

// layers are those that have one test for everything, so that any mutant can be sent through them.
var layers = map[string]mutant{
	"sim":   {pkg: "./tests/sim", tests: "TestSimulation", env: []string{"SIM_SEEDS=300", "SIM_FIRST=1"}},
	"units": {pkg: "./lease", tests: "."},
	"linearizability": {pkg: "./tests",
		tests: "TestHistoriesAreLinearizable|TestHistoriesWithLost|TestHistoriesOverABadWire"},
}

func layerNames() []string { return slices.Sorted(maps.Keys(layers)) }

// redirect sends mutants through a layer, unless it is "".
func redirect(mutants []*mutant, through string) error {
	if through == "" {
		return nil
	}
	layer, ok := layers[through]
	if !ok {
		return fmt.Errorf("layer %q: want one of %v", through, layerNames())
	}
	for _, m := range mutants {
		m.layer, m.pkg, m.tests, m.env = through, layer.pkg, layer.tests, layer.env
	}
	return nil
}

// load reads the mutants of all files.
func load(dir string) ([]*mutant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "tests", "mutants", "*.mutant"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no tests/mutants/*.mutant under %s: run it where go.work is", dir)
	}
	var mutants []*mutant
	var errs []error
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		some, err := parse(string(text))
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(file), err))
		}
		mutants = append(mutants, some...)
	}
	for _, m := range mutants {
		_, err := m.sources(dir)
		errs = append(errs, err)
	}
	return mutants, errors.Join(errs...)
}

// parse reads the mutants of a file.
func parse(text string) (mutants []*mutant, err error) {
	m := &mutant{} // what comes before the first one is lost, and found by complete
	var file string
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimRight(lines[i], " ")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if line == "<<<" {
			e := edit{file: file}
			if e.old, i, err = block(lines, i+1, "==="); err != nil {
				return nil, err
			}
			if e.new, i, err = block(lines, i+1, ">>>"); err != nil {
				return nil, err
			}
			m.edits = append(m.edits, e)
			continue
		}
		key, value, _ := strings.Cut(line, ": ")
		switch key {
		case "mutant":
			m = &mutant{name: value}
			mutants = append(mutants, m)
		case "rule":
			m.rule = value
		case "layer":
			m.layer = value
		case "test":
			m.pkg, m.tests, _ = strings.Cut(value, " ")
		case "env":
			m.env = strings.Fields(value)
		case "file":
			file = value
		default:
			return nil, fmt.Errorf("line %d: %q", i+1, line)
		}
	}
	for _, m := range mutants {
		err = errors.Join(err, m.complete())
	}
	return mutants, err
}

// block returns the lines up to one that is end, and the index of that.
func block(lines []string, from int, end string) (text string, at int, err error) {
	n := slices.Index(lines[from:], end)
	if n < 0 {
		return "", 0, fmt.Errorf("line %d: no %s follows", from, end)
	}
	return strings.Join(lines[from:from+n], "\n"), from + n, nil
}

// complete finds what is missing.
func (m *mutant) complete() error {
	if m.rule == "" || m.layer == "" || m.pkg == "" || m.tests == "" || len(m.edits) == 0 {
		return fmt.Errorf("%q: want rule, layer, test and a text to change", m.name)
	}
	_, err := regexp.Compile(m.tests)
	return err
}

// sources returns the changed files by their names.
func (m *mutant) sources(dir string) (map[string]string, error) {
	sources := map[string]string{}
	for _, e := range m.edits {
		source, ok := sources[e.file]
		if !ok {
			text, err := os.ReadFile(filepath.Join(dir, e.file))
			if err != nil {
				return nil, fmt.Errorf("%q: %w", m.name, err)
			}
			source = string(text)
		}
		if n := strings.Count(source, e.old); n != 1 {
			return nil, fmt.Errorf("%q is out of date: %s has its text %d times, want once:\n%s", m.name, e.file, n, e.old)
		}
		sources[e.file] = strings.Replace(source, e.old, e.new, 1)
	}
	return sources, nil
}
