package metrics

import (
	"bytes"
	"cmp"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/meter"
)

// contentType is that of Prometheus's text format.
const contentType = "text/plain; version=0.0.4; charset=utf-8"

// WritePrometheus writes all metrics in Prometheus's text format, version 0.0.4,
// sorted. Each value is right for a moment during the call. Its error is w's.
func (m *Metrics) WritePrometheus(w io.Writer) error {
	_, err := w.Write(m.text())
	return err
}

// ServeHTTP answers GET and HEAD with what WritePrometheus writes, and refuses
// other methods. Whoever can reach it sees the names of elections and pools.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "want GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	_ = m.WritePrometheus(w) // the reader has gone
}

func (m *Metrics) text() []byte {
	gauges := map[*meter.Instrument]map[meter.Labels]float64{}
	m.meter.Gauges(func(i *meter.Instrument, value float64, labels meter.Labels) {
		if gauges[i] == nil {
			gauges[i] = map[meter.Labels]float64{}
		}
		gauges[i][labels] = value
	})
	var t text
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, i := range meter.All {
		name := i.PrometheusName()
		switch {
		case len(m.series[i]) == 0 && len(gauges[i]) == 0:
			continue
		case i.Kind == meter.Gauge:
			t.head(name, i.Help, "gauge")
			for _, labels := range sorted(gauges[i]) {
				t.sample(name, i, labels, "", gauges[i][labels])
			}
		case i.Kind == meter.Histogram:
			t.head(name, i.Help, "histogram")
			for _, labels := range sorted(m.series[i]) {
				t.histogram(name, i, labels, m.series[i][labels])
			}
		default:
			kind := "gauge"
			if i.Kind == meter.Counter {
				kind = "counter"
			}
			t.head(name, i.Help, kind)
			for _, labels := range sorted(m.series[i]) {
				t.sample(name, i, labels, "", float64(m.series[i][labels].n.Load()))
			}
		}
	}
	return t.Bytes()
}

func sorted[T any](of map[meter.Labels]T) []meter.Labels {
	return slices.SortedFunc(maps.Keys(of), func(a, b meter.Labels) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Second, b.Second), cmp.Compare(a.Key, b.Key))
	})
}

// text is a page in the text format.
type text struct{ bytes.Buffer }

func (t *text) head(name, help, kind string) {
	t.WriteString("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
}

// histogram writes a series with its buckets. Its count is that of the buckets,
// so that they agree.
func (t *text) histogram(name string, i *meter.Instrument, labels meter.Labels, s *series) {
	count := uint64(0)
	for n := range s.buckets {
		count += s.buckets[n].Load()
		le := "+Inf"
		if n < len(i.Bounds) {
			le = number(i.Bounds[n])
		}
		t.sample(name+"_bucket", i, labels, le, float64(count))
	}
	t.sample(name+"_sum", i, labels, "", time.Duration(s.sum.Load()).Seconds())
	t.sample(name+"_count", i, labels, "", float64(count))
}

// sample writes one line. le is the bound of a bucket, "" for what is none.
func (t *text) sample(name string, i *meter.Instrument, labels meter.Labels, le string, value float64) {
	t.WriteString(name)
	separator := "{"
	label := func(name, value string) {
		t.WriteString(separator + name + `="` + escape(value) + `"`)
		separator = ","
	}
	for n, attribute := range i.Attributes {
		label(attribute, []string{labels.First, labels.Second}[n])
	}
	if labels.Key != "" {
		label(meter.KeyAttribute, labels.Key)
	}
	if le != "" {
		label("le", le)
	}
	if separator == "," {
		t.WriteByte('}')
	}
	t.WriteString(" " + number(value) + "\n")
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

var escapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func escape(value string) string {
	return escapes.Replace(strings.ToValidUTF8(value, "\uFFFD"))
}
