//go:build unix

package chaos_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

func TestMain(m *testing.M) {
	if os.Getenv(envLog) == "" {
		dynamolocal.Main(m)
	}
	if err := work(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// recovery is within which time a key is granted again after its holder's death
// (I5): the ttl and a sixteenth, a third of it between two looks at the
// session, 3 % for the clocks, a poll; and what a loaded machine takes.
const recovery = (ttl+ttl/16+ttl/3)*103/100 + poll + 5*time.Second

// duration is how long to go on beginning faults: CHAOS_MINUTES, or 10 s.
func duration(t *testing.T) time.Duration {
	if testing.Short() {
		t.Skip("long: left out by -short")
	}
	text := os.Getenv("CHAOS_MINUTES")
	if text == "" {
		return 10 * time.Second // the storm; the process start, the last faults and what follows are as long again
	}
	minutes, err := strconv.ParseFloat(text, 64)
	require.NoError(t, err, "CHAOS_MINUTES")
	return time.Duration(minutes * float64(time.Minute))
}

func TestChaosOnSQLite(t *testing.T) {
	t.Parallel()
	d := duration(t)
	f := &fleet{t: t, kinds: []string{killed, stopped}}
	f.env = []string{envFile + "=" + filepath.Join(t.TempDir(), "kv.db")}
	run(f, d)
}

func TestChaosOnDynamoDB(t *testing.T) {
	t.Parallel()
	d := duration(t)
	endpoint := dynamolocal.Endpoint(t)
	table := "chaos-" + rand.Text()
	require.NoError(t, dynamokv.EnsureTable(context.Background(), localClient(endpoint), table))
	f := &fleet{t: t, env: []string{envTable + "=" + table}}
	for _, w := range []weather{requestsLate, answersVanish, requestsVanish, answersLost, cut} {
		f.kinds = append(f.kinds, killed, string(w), stopped)
	}
	for i := range f.slots {
		f.slots[i] = &slot{proxy: startProxy(t, strings.TrimPrefix(endpoint, "http://"))}
	}
	run(f, d)
}

// run lets the workers run for d, in storms with calms and a single kill
// between them, and checks what they did.
func run(f *fleet, d time.Duration) {
	t := f.t
	f.logs, f.resource = t.TempDir(), resource(t.TempDir())
	t.Cleanup(f.end)
	for i, s := range f.slots {
		if s == nil {
			f.slots[i] = &slot{}
		}
		f.start(f.slots[i])
	}
	f.calm(time.Minute)
	for until := machineTime() + d; machineTime() < until && !t.Failed(); {
		f.storm(min(20*time.Second, until-machineTime()))
		f.calm(recovery)
		f.killHolder()
		f.calm(recovery)
	}
	f.end()
	found := check(f.history(recovery))
	slices.Sort(found.takeovers)
	t.Logf("%d grants, %d leases lost, %d stale writes refused; faults: %s; undisturbed takeovers after a kill: %v",
		found.grants, found.lost, found.stale, f.summary(), found.takeovers)
	require.Empty(t, found.violations)
	require.NotZero(t, found.grants)
	for _, kind := range f.kinds[:2] {
		require.Contains(t, f.summary(), kind)
	}
}
