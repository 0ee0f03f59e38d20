package alerts_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/meter"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// dashboard is what the tests read of infra/grafana.json.
type dashboard struct {
	UID        string `json:"uid"`
	Title      string `json:"title"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct {
		X, Y, W, H int
	} `json:"gridPos"`
	Targets []struct {
		RefID        string `json:"refId"`
		Expr         string `json:"expr"`
		LegendFormat string `json:"legendFormat"`
	} `json:"targets"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile(repository + "/infra/grafana.json")
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	require.NotEmpty(t, d.Panels)
	return d
}

// exprs are the expressions of the dashboard, by panel.
func (d dashboard) exprs() map[string][]string {
	all := map[string][]string{}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			all[p.Title] = append(all[p.Title], target.Expr)
		}
	}
	return all
}

// instrumentOf finds the instrument that a series is of.
func instrumentOf(series string) (i *meter.Instrument, labels []string) {
	for _, i := range meter.All {
		name := i.PrometheusName()
		labels := append([]string{"instance", "job"}, i.Attributes...)
		switch {
		case i.Kind != meter.Histogram && series == name:
			return i, labels
		case i.Kind == meter.Histogram && series == name+"_bucket":
			return i, append(labels, "le")
		case i.Kind == meter.Histogram && (series == name+"_count" || series == name+"_sum"):
			return i, labels
		}
	}
	return nil, nil
}

// groupings are the labels that an expression groups by.
func groupings(e expression) (by []string) {
	switch e := e.(type) {
	case aggregate:
		return append(groupings(e.of), e.by...)
	case call:
		for _, arg := range e.args {
			by = append(by, groupings(arg)...)
		}
	case binary:
		by = append(groupings(e.left), groupings(e.right)...)
	}
	return by
}

// requireExported requires that the series and labels of an expression exist.
func requireExported(t *testing.T, where, text string) (instruments []*meter.Instrument) {
	t.Helper()
	e := parsePromQL(t, text)
	require.NotEmpty(t, selectors(e), where)
	for _, s := range selectors(e) {
		i, labels := instrumentOf(s.name)
		require.NotNil(t, i, "%s: nothing exports %s", where, s.name)
		instruments = append(instruments, i)
		for _, m := range s.matchers {
			require.Contains(t, labels, m.label, "%s: %s", where, s.name)
		}
		for _, label := range groupings(e) {
			require.Contains(t, labels, label, "%s: %s", where, s.name)
		}
	}
	return instruments
}

func TestTheAlertsNameWhatIsExported(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile(`\$labels\.(\w+)`)
	for _, r := range readRules(t) {
		instruments := requireExported(t, r.Alert, r.Expr)
		by := groupings(parsePromQL(t, r.Expr))
		for _, text := range r.Annotations {
			for _, m := range named.FindAllStringSubmatch(text, -1) {
				if strings.Contains(r.Expr, " by (") {
					require.Contains(t, by, m[1], r.Alert)
					continue
				}
				require.Contains(t, append([]string{"instance", "job"}, instruments[0].Attributes...), m[1], r.Alert)
			}
		}
	}
}

func TestTheDashboardShowsEachMetricThatIsExported(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	shown := map[*meter.Instrument]bool{}
	for title, exprs := range d.exprs() {
		for _, expr := range exprs {
			require.Contains(t, expr, `job=~"$job"`, title)
			for _, i := range requireExported(t, title, expr) {
				shown[i] = true
			}
		}
	}
	for _, i := range meter.All {
		require.True(t, shown[i], "no panel shows %s", i.Name)
	}
	series := regexp.MustCompile(`dynalock_\w+`)
	for _, variable := range d.Templating.List {
		for _, name := range series.FindAllString(variable.Definition, -1) {
			i, _ := instrumentOf(name)
			require.NotNil(t, i, variable.Name)
		}
	}
}

func TestThePanelsDoNotOverlap(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	ids, taken := map[int]bool{}, map[[2]int]string{}
	legend := regexp.MustCompile(`\{\{(\w+)\}\}`)
	for _, p := range d.Panels {
		require.False(t, ids[p.ID], p.Title)
		ids[p.ID] = true
		require.Contains(t, []string{"row", "stat", "timeseries"}, p.Type, p.Title)
		require.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				require.Empty(t, taken[[2]int{x, y}], p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		for _, target := range p.Targets {
			e := parsePromQL(t, target.Expr)
			_, labels := instrumentOf(selectors(e)[0].name)
			if strings.Contains(target.Expr, "(") && !strings.HasPrefix(target.Expr, "dynalock_") {
				labels = groupings(e)
			}
			for _, m := range legend.FindAllStringSubmatch(target.LegendFormat, -1) {
				require.Contains(t, labels, m[1], "%s: %s", p.Title, target.Expr)
			}
		}
	}
	require.True(t, slices.IsSortedFunc(d.Panels, func(a, b panel) int {
		return (a.GridPos.Y*24 + a.GridPos.X) - (b.GridPos.Y*24 + b.GridPos.X)
	}))
}

// After a life with everything in it, each panel has something to show.
func TestEachPanelShowsSomething(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t)
		p, q := f.start(f.store), f.start(f.store)
		f.campaign(p, "boss")
		jobs, err := pool.New(p.Client, "jobs", nil)
		require.NoError(t, err)
		require.NoError(t, jobs.Add(t.Context(), "one", "two"))
		partition := f.hold(q, "pool/elsewhere/partition")
		for range 8 {
			require.NoError(t, f.hold(q, "key").Release(t.Context()))
			require.NoError(t, p.metrics.CountPartitions("jobs", jobs.Partitions(t.Context())))
			f.run(interval)
		}
		require.NoError(t, partition.Release(t.Context()))
		lost := f.hold(q, "key")
		q.fail(kv.ErrThrottled)
		<-lost.Context().Done()
		q.fail(nil)
		require.ErrorIs(t, lost.Release(t.Context()), lease.ErrLost)
		f.hold(q, "key")
		f.run(time.Minute)
		for title, exprs := range readDashboard(t).exprs() {
			for _, expr := range exprs {
				require.NotEmpty(t, parsePromQL(t, strings.ReplaceAll(expr, "1h", "5m")).eval(&f.scrapes, time.Now()), "%s: %s",
					title, expr)
			}
		}
	})
}
