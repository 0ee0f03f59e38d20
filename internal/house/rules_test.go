package house_test

import (
	"fmt"
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
	var tests strings.Builder
	for _, file := range tracked(t, "*_test.go") {
		for _, name := range regexp.MustCompile(`(?m)^func (Test\w+)`).FindAllStringSubmatch(read(t, file), -1) {
			fmt.Fprintln(&tests, name[1])
		}
	}
	for _, rule := range rules {
		require.Regexp(t, `(?m)^Test\w*`+rule[1]+`(\D|$)`, tests.String(), "no test is named after %s", rule[1])
	}
	places := regexp.MustCompile("`((?:internal|lease)/[\\w./]+)`").FindAllStringSubmatch(read(t, "CONTRIBUTING.md"), -1)
	require.NotEmpty(t, places)
	for _, place := range places {
		require.NotEmpty(t, tracked(t, place[1]), place[1])
	}
}
