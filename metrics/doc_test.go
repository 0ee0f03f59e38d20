package metrics_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// documentedMetrics are the lines of doc.go's table, with single spaces.
func documentedMetrics(t *testing.T) []string {
	t.Helper()
	source, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	var lines []string
	for _, line := range regexp.MustCompile(`(?m)^//\t(dynalock_.*)$`).FindAllStringSubmatch(string(source), -1) {
		lines = append(lines, strings.Join(strings.Fields(line[1]), " "))
	}
	return lines
}
