// Package promtext reads Prometheus's text format, strictly, for tests of what
// writes it.
package promtext

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Family is one metric.
type Family struct {
	Name, Help, Type string
	Samples          []Sample
}

// Sample is one line with a value.
type Sample struct {
	Name   string
	Labels map[string]string
	Value  float64
}

// String is the sample without its value, its labels sorted.
func (s *Sample) String() string { return s.Name + labelsOf(s.Labels) }

func labelsOf(labels map[string]string) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, fmt.Sprintf("%s=%q", name, labels[name]))
	}
	if pairs == nil {
		return ""
	}
	return "{" + strings.Join(pairs, ",") + "}"
}

// Values returns the value of each sample, by Sample.String.
func Values(families []Family) map[string]float64 {
	values := map[string]float64{}
	for _, f := range families {
		for _, s := range f.Samples {
			values[s.String()] = s.Value
		}
	}
	return values
}

var (
	sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$`)
	label  = regexp.MustCompile(`^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\[\\n"])*)"(?:,|$)`)
	escape = strings.NewReplacer(`\\`, `\`, `\n`, "\n", `\"`, `"`)
)

// Parse reads a text. It is an error where the format is not kept, a metric
// comes twice or without its type, a counter is not called _total, or the
// buckets of a histogram do not fit its count.
func Parse(text string) ([]Family, error) {
	if !utf8.ValidString(text) || !strings.HasSuffix(text, "\n") {
		return nil, errors.New("promtext: want lines of UTF-8")
	}
	p := parser{names: map[string]bool{}, series: map[string]bool{}}
	for n, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if err := p.line(line); err != nil {
			return nil, fmt.Errorf("promtext: line %d, %q: %w", n+1, line, err)
		}
	}
	for i := range p.families {
		if err := p.families[i].check(); err != nil {
			return nil, fmt.Errorf("promtext: %s: %w", p.families[i].Name, err)
		}
	}
	return p.families, nil
}

type parser struct {
	families      []Family
	names, series map[string]bool
}

func (p *parser) line(line string) error {
	if tail, ok := strings.CutPrefix(line, "# HELP "); ok {
		name, help, _ := strings.Cut(tail, " ")
		if p.names[name] || help == "" {
			return errors.New("want one HELP for each metric")
		}
		p.names[name] = true
		p.families = append(p.families, Family{Name: name, Help: help})
		return nil
	}
	if len(p.families) == 0 {
		return errors.New("want HELP first")
	}
	f := &p.families[len(p.families)-1]
	if tail, ok := strings.CutPrefix(line, "# TYPE "); ok {
		name, kind, _ := strings.Cut(tail, " ")
		if name != f.Name || f.Type != "" || !slices.Contains([]string{"counter", "gauge", "histogram"}, kind) {
			return errors.New("want one TYPE after HELP")
		}
		f.Type = kind
		return nil
	}
	s, err := parseSample(line)
	if err != nil {
		return err
	}
	if f.Type == "" || !f.has(s.Name) {
		return errors.New("want samples after the TYPE of their metric")
	}
	if p.series[s.String()] {
		return errors.New("the series is there already")
	}
	p.series[s.String()] = true
	f.Samples = append(f.Samples, s)
	return nil
}

func parseSample(line string) (Sample, error) {
	parts := sample.FindStringSubmatch(line)
	if parts == nil {
		return Sample{}, errors.New("no sample")
	}
	s := Sample{Name: parts[1], Labels: map[string]string{}}
	for tail := parts[2]; tail != ""; {
		l := label.FindStringSubmatch(tail)
		if l == nil {
			return Sample{}, errors.New("no label")
		}
		if _, known := s.Labels[l[1]]; known {
			return Sample{}, errors.New("a label twice")
		}
		s.Labels[l[1]] = escape.Replace(l[2])
		tail = tail[len(l[0]):]
	}
	var err error
	s.Value, err = strconv.ParseFloat(parts[3], 64)
	return s, err
}

// has reports whether a sample of that name is the family's.
func (f *Family) has(name string) bool {
	if f.Type != "histogram" {
		return name == f.Name
	}
	suffix, ok := strings.CutPrefix(name, f.Name)
	return ok && slices.Contains([]string{"_bucket", "_sum", "_count"}, suffix)
}

func (f *Family) check() error {
	if len(f.Samples) == 0 {
		return errors.New("no samples")
	}
	if (f.Type == "counter") != strings.HasSuffix(f.Name, "_total") {
		return errors.New("want _total for counters and for nothing else")
	}
	if f.Type != "histogram" {
		return nil
	}
	last, bound := map[string]float64{}, map[string]float64{} // the last bucket of each series
	counts, sums := map[string]float64{}, map[string]bool{}
	for _, s := range f.Samples {
		labels := maps.Clone(s.Labels)
		delete(labels, "le")
		series := labelsOf(labels)
		switch s.Name {
		case f.Name + "_sum":
			sums[series] = true
			continue
		case f.Name + "_count":
			counts[series] = s.Value
			continue
		}
		le, err := strconv.ParseFloat(s.Labels["le"], 64)
		if err != nil {
			return err
		}
		if before, ok := bound[series]; ok && (le <= before || s.Value < last[series]) {
			return fmt.Errorf("buckets of %s do not grow", series)
		}
		last[series], bound[series] = s.Value, le
	}
	for series, count := range counts {
		if last[series] != count || !sums[series] || bound[series] <= 1e300 {
			return fmt.Errorf("want a last bucket +Inf that holds the count, and a sum, for %s", series)
		}
	}
	if len(counts) != len(last) || len(counts) != len(sums) {
		return errors.New("want a count and a sum for each series")
	}
	return nil
}
