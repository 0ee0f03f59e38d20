package promtext_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/promtext"
)

const (
	good = `# HELP a_total Some.
# TYPE a_total counter
a_total{x="1"} 2
a_total{x="a\"\\\n,}=",y=""} 3e+06
`
	histogram = "# HELP h Some.\n# TYPE h histogram\n"
)

func TestParseReadsWhatIsWellFormed(t *testing.T) {
	t.Parallel()
	families, err := promtext.Parse(good + histogram +
		"h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 3\nh_sum 4.5\nh_count 3\n")
	require.NoError(t, err)
	require.Equal(t, map[string]float64{
		`a_total{x="1"}`: 2, `a_total{x="a\"\\\n,}=",y=""}`: 3e6,
		`h_bucket{le="1"}`: 2, `h_bucket{le="+Inf"}`: 3, "h_sum": 4.5, "h_count": 3,
	}, promtext.Values(families))
}

func TestParseRefusesWhatIsNot(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no newline":              good[:len(good)-1],
		"no UTF-8":                good + "# \xff\n",
		"an empty line":           good + "\n",
		"no TYPE":                 "# HELP a_total Some.\na_total 1\n",
		"no HELP":                 "# TYPE a_total counter\na_total 1\n",
		"a metric twice":          good + good,
		"a series twice":          good + "a_total{x=\"1\"} 5\n",
		"another's sample":        good + "b 1\n",
		"no samples":              "# HELP a_total Some.\n# TYPE a_total counter\n",
		"a counter without total": "# HELP a Some.\n# TYPE a counter\na 1\n",
		"a gauge with total":      "# HELP a_total Some.\n# TYPE a_total gauge\na_total 1\n",
		"no number":               "# HELP a Some.\n# TYPE a gauge\na one\n",
		"an unknown escape":       "# HELP a Some.\n# TYPE a gauge\na{x=\"\\t\"} 1\n",
		"an open quote":           "# HELP a Some.\n# TYPE a gauge\na{x=\"1} 1\n",
		"a label twice":           "# HELP a Some.\n# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n",
		"buckets that shrink":     histogram + "h_bucket{le=\"1\"} 2\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\n",
		"bounds that shrink":      histogram + "h_bucket{le=\"+Inf\"} 1\nh_bucket{le=\"2\"} 1\nh_sum 1\nh_count 1\n",
		"another count":           histogram + "h_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 2\n",
		"no last bucket":          histogram + "h_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n",
		"no sum":                  histogram + "h_bucket{le=\"+Inf\"} 1\nh_count 1\n",
		"no count":                histogram + "h_bucket{le=\"+Inf\"} 1\nh_sum 1\n",
	} {
		_, err := promtext.Parse(text)
		require.Error(t, err, name)
	}
}
