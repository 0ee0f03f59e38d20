package house_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// Comments of the library wrap at 80 columns. What cannot be wrapped, such as an
// example, has 100. A tab is 4.
func TestCommentsOfTheLibraryAreNarrow(t *testing.T) {
	t.Parallel()
	folders := []string{"kv/*.go", "lease/*.go", "pool/*.go", "lock/*.go", "election/*.go", "metrics/*.go", "web/*.go",
		"internal/*.go"}
	for _, file := range tracked(t, folders...) {
		line := 0
		for text := range strings.Lines(read(t, file)) {
			line++
			text = strings.ReplaceAll(strings.TrimRight(text, "\n"), "\t", "    ")
			if strings.HasPrefix(strings.TrimSpace(text), "//") {
				require.LessOrEqual(t, utf8.RuneCountInString(text), 100, "%s:%d", file, line)
			}
		}
	}
}
