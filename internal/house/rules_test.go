package house_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// CONTRIBUTING says how to run the tests of a rule, and where its code is.
func TestEveryRuleOfTheDesignHasTestsAndAPlace(t *testing.T) {
	t.Parallel()
	rules := regexp.MustCompile(`(?m)^- \*\*([RI]\d+)\b`).FindAllStringSubmatch(read(t, "docs/design.md"), -1)
	require.Greater(t, len(rules), 19+12)
	tested, number := map[string]bool{}, regexp.MustCompile(`[RI]\d+`)
	for _, file := range tracked(t, "*_test.go") {
		for line := range strings.Lines(read(t, file)) {
			if test, ok := strings.CutPrefix(line, "func Test"); ok {
				name, _, _ := strings.Cut(test, "(")
				for _, rule := range number.FindAllString(name, -1) {
					tested[rule] = true
				}
			}
		}
	}
	for _, rule := range rules {
		require.True(t, tested[rule[1]], "no test is named after %s", rule[1])
	}
	places := regexp.MustCompile("`((?:internal|lease)/[\\w./]+)`").FindAllStringSubmatch(read(t, "CONTRIBUTING.md"), -1)
	require.NotEmpty(t, places)
	for _, place := range places {
		require.NotEmpty(t, tracked(t, place[1]), place[1])
	}
}
