package tests_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheDesignPageExplainsEveryRuleThatCommentsQuote also requires that no
// rule of a series is missing.
func TestTheDesignPageExplainsEveryRuleThatCommentsQuote(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(repository + "/docs/design.md")
	require.NoError(t, err)
	explained := map[string]bool{}
	for _, item := range regexp.MustCompile(`(?m)^- \*\*([RSIHW]\d+(?:, [RSIHW]\d+)*)\b`).FindAllStringSubmatch(string(page), -1) {
		for rule := range strings.SplitSeq(item[1], ", ") {
			explained[rule] = true
		}
	}
	for series, last := range map[string]int{"R": 22, "S": 6, "I": 16} {
		for n := 1; n <= last; n++ {
			require.True(t, explained[series+strconv.Itoa(n)], "%s%d is missing", series, n)
		}
	}
	quoted := regexp.MustCompile(`\b[RSIHW][1-9]\d?\b`)
	require.NoError(t, filepath.WalkDir(repository+"/", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || filepath.Base(path) == "design_test.go" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			_, comment, found := strings.Cut(line, "//")
			if !found {
				continue
			}
			for _, rule := range quoted.FindAllString(comment, -1) {
				require.True(t, explained[rule], "%s quotes %s: %s", path, rule, line)
			}
		}
		return nil
	}))
}
