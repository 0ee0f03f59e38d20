package kvtest

import (
	"bytes"
	"context"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

// goroutineLabel marks a goroutine and those that it starts, so that one test
// finds its own among those of all.
const goroutineLabel = "kvtest"

// leftover returns the stacks of the goroutines with the label. A connection
// that is kept open for the next request is not left over: net/http's are not
// counted.
func leftover(t *testing.T, label string) (stacks []string) {
	t.Helper()
	var profile bytes.Buffer
	require.NoError(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))
	for record := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(record, `"`+goroutineLabel+`":"`+label+`"`) && !strings.Contains(record, "net/http.") {
			stacks = append(stacks, record)
		}
	}
	return stacks
}

// testWatchLeavesNoGoroutine breaks off a watch before, at and behind the
// synced mark, and lets one end with its context.
func testWatchLeavesNoGoroutine(t *testing.T, e *env) {
	e.fill(t, "1", "2")
	for _, events := range []int{1, 2, 3, 4} {
		ctx, cancel := context.WithCancel(e.ctx)
		defer cancel() // at the test's end: what the loop leaves behind must not end for that, nor for a time-out
		label := e.prefix
		pprof.Do(ctx, pprof.Labels(goroutineLabel, label), func(ctx context.Context) {
			observed := 0
			for _, err := range kv.Watch(ctx, e.other, e.prefix) {
				require.NoError(t, err)
				if observed++; observed == events {
					break
				}
				if observed == 3 {
					e.put(t, "3")
				}
			}
		})
		e.until(t, "a goroutine is left of a watch that was broken off", func() bool { return len(leftover(t, label)) == 0 })
	}
}
