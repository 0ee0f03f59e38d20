package alerts_test

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/promtext"
)

// scrapes are the series that were scraped from exported text.
type scrapes struct{ series map[string]*scraped }

type scraped struct {
	name   string
	labels map[string]string
	points []point
}

// point is a value at a time. NaN says that the series was there no more.
type point struct {
	at    time.Time
	value float64
}

// value is an element of an instant vector.
type value struct {
	labels map[string]string
	value  float64
}

// scrape adds what an instance exports.
func (db *scrapes) scrape(t *testing.T, at time.Time, instance, text string) {
	t.Helper()
	families, err := promtext.Parse(text)
	require.NoError(t, err)
	if db.series == nil {
		db.series = map[string]*scraped{}
	}
	seen := map[*scraped]bool{}
	for _, f := range families {
		for _, s := range f.Samples {
			s.Labels["instance"], s.Labels["job"] = instance, "test"
			series := db.series[s.String()]
			if series == nil {
				series = &scraped{name: s.Name, labels: s.Labels}
				db.series[s.String()] = series
			}
			series.points = append(series.points, point{at, s.Value})
			seen[series] = true
		}
	}
	for _, series := range db.series {
		if series.labels["instance"] == instance && !seen[series] {
			series.points = append(series.points, point{at, math.NaN()})
		}
	}
}

// lookback is for how long Prometheus takes a value that was not followed by
// another for the present one.
const lookback = 5 * time.Minute

// between are the points of (from, to].
func (s *scraped) between(from, to time.Time) (points []point) {
	for _, p := range s.points {
		if p.at.After(from) && !p.at.After(to) {
			points = append(points, p)
		}
	}
	return points
}

func (s selector) matches(series *scraped) bool {
	if series.name != s.name {
		return false
	}
	for _, m := range s.matchers {
		if m.value.MatchString(series.labels[m.label]) == (m.op == "!=") {
			return false
		}
	}
	return true
}

func (s selector) eval(db *scrapes, at time.Time) (vector []value) {
	at = at.Add(-s.offset)
	for _, series := range db.series {
		points := series.between(at.Add(-lookback), at)
		if !s.matches(series) || len(points) == 0 || math.IsNaN(points[len(points)-1].value) {
			continue
		}
		vector = append(vector, value{series.labels, points[len(points)-1].value})
	}
	return vector
}

// over evaluates a function of a range, which is given at least one point.
func (s selector) over(db *scrapes, at time.Time, function func([]point) (float64, bool)) (vector []value) {
	at = at.Add(-s.offset)
	for _, series := range db.series {
		points := slices.DeleteFunc(series.between(at.Add(-s.rng), at), func(p point) bool { return math.IsNaN(p.value) })
		if !s.matches(series) || len(points) == 0 {
			continue
		}
		if v, ok := function(points); ok {
			vector = append(vector, value{series.labels, v})
		}
	}
	return vector
}

// increase is Prometheus's without its extrapolation to the ends of the range.
func increase(points []point) (sum float64, ok bool) {
	for n := 1; n < len(points); n++ {
		change := points[n].value - points[n-1].value
		if change < 0 {
			change = points[n].value // it began again
		}
		sum += change
	}
	return sum, len(points) > 1
}

func (n number) eval(*scrapes, time.Time) []value { return []value{{nil, float64(n)}} }

func (c call) eval(db *scrapes, at time.Time) []value {
	if c.function == "histogram_quantile" {
		return quantiles(float64(c.args[0].(number)), c.args[1].eval(db, at))
	}
	s := c.args[0].(selector)
	switch c.function {
	case "increase":
		return s.over(db, at, increase)
	case "rate":
		return s.over(db, at, func(points []point) (float64, bool) {
			sum, ok := increase(points)
			return sum / s.rng.Seconds(), ok
		})
	default: // min_over_time
		return s.over(db, at, func(points []point) (float64, bool) {
			return slices.MinFunc(points, func(a, b point) int { return cmp.Compare(a.value, b.value) }).value, true
		})
	}
}

func quantiles(q float64, buckets []value) (vector []value) {
	type bucket struct{ le, count float64 }
	groups, labels := map[string][]bucket{}, map[string]map[string]string{}
	for _, b := range buckets {
		le, err := strconv.ParseFloat(b.labels["le"], 64)
		if err != nil {
			panic(err)
		}
		rest := without(b.labels, "le")
		key := keyOf(rest)
		groups[key], labels[key] = append(groups[key], bucket{le, b.value}), rest
	}
	for key, group := range groups {
		slices.SortFunc(group, func(a, b bucket) int { return cmp.Compare(a.le, b.le) })
		rank := q * group[len(group)-1].count
		n := slices.IndexFunc(group, func(b bucket) bool { return b.count >= rank })
		if rank == 0 {
			continue // NaN in Prometheus, which no comparison is true for
		}
		from, before := 0.0, 0.0
		if n > 0 {
			from, before = group[n-1].le, group[n-1].count
		}
		quantile := from // of the last bucket, its lower bound
		if !math.IsInf(group[n].le, 1) {
			quantile += (group[n].le - from) * (rank - before) / (group[n].count - before)
		}
		vector = append(vector, value{labels[key], quantile})
	}
	return vector
}

func (a aggregate) eval(db *scrapes, at time.Time) (vector []value) {
	groups := map[string]int{}
	for _, v := range a.of.eval(db, at) {
		labels := map[string]string{}
		for _, name := range a.by {
			if v.labels[name] != "" {
				labels[name] = v.labels[name]
			}
		}
		n, known := groups[keyOf(labels)]
		if !known {
			groups[keyOf(labels)] = len(vector)
			vector = append(vector, value{labels, v.value})
			continue
		}
		switch a.function {
		case "sum":
			vector[n].value += v.value
		case "max":
			vector[n].value = max(vector[n].value, v.value)
		case "min":
			vector[n].value = min(vector[n].value, v.value)
		}
	}
	return vector
}

func (b binary) eval(db *scrapes, at time.Time) (vector []value) {
	left, right := b.left.eval(db, at), b.right.eval(db, at)
	there := map[string]float64{}
	for _, v := range right {
		there[keyOf(v.labels)] = v.value
	}
	if b.op == "or" {
		vector = left
		there = map[string]float64{}
		for _, v := range left {
			there[keyOf(v.labels)] = v.value
		}
		left = right
	}
	for _, v := range left {
		other, ok := there[keyOf(v.labels)]
		if n, constant := b.right.(number); constant {
			other, ok = float64(n), true
		}
		switch {
		case b.op == "/" && ok:
			vector = append(vector, value{v.labels, v.value / other})
		case (b.op == "or" || b.op == "unless") && !ok,
			ok && (b.op == ">" && v.value > other || b.op == "<" && v.value < other || b.op == "==" && v.value == other):
			vector = append(vector, v)
		}
	}
	return vector
}

func without(labels map[string]string, name string) map[string]string {
	rest := map[string]string{}
	for n, v := range labels {
		if n != name {
			rest[n] = v
		}
	}
	return rest
}

func keyOf(labels map[string]string) string { return (&promtext.Sample{Labels: labels}).String() }

// What is wanted was worked out by hand, from Prometheus's documentation.
func TestPromQLEvaluatesAsPrometheusDoes(t *testing.T) {
	t.Parallel()
	begin := time.Unix(0, 0)
	var db scrapes
	for n, lines := range []string{
		"# TYPE c_total counter\nc_total{x=\"1\"} 0\n", "# TYPE c_total counter\nc_total{x=\"1\"} 4\nc_total{x=\"2\"} 3\n",
		"# TYPE c_total counter\nc_total{x=\"1\"} 1\nc_total{x=\"2\"} 3\n", "# TYPE c_total counter\nc_total{x=\"2\"} 5\n",
	} {
		histogram := "# HELP h h\n# TYPE h histogram\nh_bucket{le=\"1\"} 5\n" +
			"h_bucket{le=\"2\"} 9\nh_bucket{le=\"+Inf\"} 10\nh_sum 1\nh_count 10\n"
		db.scrape(t, begin.Add(time.Duration(n)*time.Minute), "i", "# HELP c_total c\n"+lines+histogram)
	}
	at := begin.Add(3 * time.Minute)
	for text, want := range map[string]map[string]float64{
		`c_total`:                                         {"2": 5},
		`c_total offset 1m`:                               {"1": 1, "2": 3},
		`c_total{x="1"} offset 2m`:                        {"1": 4},
		`c_total{x!="1"}`:                                 {"2": 5},
		`c_total{x=~"[12]"}`:                              {"2": 5},
		`c_total{x=~"1|3"}`:                               {},
		`increase(c_total[4m])`:                           {"1": 5, "2": 2},
		`rate(c_total[4m])`:                               {"1": 5.0 / 240, "2": 2.0 / 240},
		`increase(c_total[1m])`:                           {},
		`min_over_time(c_total[4m])`:                      {"1": 0, "2": 3},
		`sum(increase(c_total[4m]))`:                      {"": 7},
		`sum by (x) (increase(c_total[4m]))`:              {"1": 5, "2": 2},
		`max by (job) (c_total offset 1m)`:                {"": 3},
		`min(c_total offset 1m)`:                          {"": 1},
		`c_total / c_total offset 1m`:                     {"2": 5.0 / 3},
		`c_total offset 1m > 1`:                           {"2": 3},
		`c_total offset 1m < 2`:                           {"1": 1},
		`c_total offset 1m == 3`:                          {"2": 3},
		`c_total > 9 or c_total offset 1m`:                {"1": 1, "2": 3},
		`c_total or (c_total offset 1m)`:                  {"1": 1, "2": 5},
		`c_total offset 1m unless c_total`:                {"1": 1},
		`c_total > 1 unless c_total offset 3m`:            {"2": 5},
		`histogram_quantile(0.5, h_bucket)`:               {"": 1},
		`histogram_quantile(0.7, sum by (le) (h_bucket))`: {"": 1.5},
		`histogram_quantile(0.99, h_bucket)`:              {"": 2},
	} {
		got := map[string]float64{}
		for _, v := range parsePromQL(t, text).eval(&db, at) {
			got[v.labels["x"]] = v.value
		}
		require.InDeltaMapValues(t, want, got, 1e-9, text)
		require.Len(t, got, len(want), text)
	}
	require.Empty(t, parsePromQL(t, "c_total").eval(&db, at.Add(lookback+time.Second)), "too old")
	require.True(t, strings.HasPrefix(keyOf(map[string]string{"x": "1"}), "{"))
}
