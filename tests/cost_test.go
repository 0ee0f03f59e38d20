package tests_test

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

var updateCost = flag.Bool("update-cost", false, "rewrite the tables of docs/cost.md")

// What docs/cost.md assumes, in its own words there.
const (
	pricePerMillionWrites = 0.625
	pricePerMillionReads  = 0.125
	month                 = 30 * 24 * time.Hour
	pollMin, pollMax      = 50 * time.Millisecond, time.Second
	jitter                = 0.9 // of a pause, on average
)

// units are write and read request units.
type units struct{ writes, reads float64 }

func (u units) dollars() float64 {
	return (u.writes*pricePerMillionWrites + u.reads*pricePerMillionReads) / 1e6
}

func (u units) times(n float64) units { return units{u.writes * n, u.reads * n} }

func (u units) plus(v units) units { return units{u.writes + v.writes, u.reads + v.reads} }

// The cost table of the protocol.
var (
	oneWrite = units{writes: 1}
	oneRead  = units{reads: 1}
)

// heartbeats are what one session sends in d.
func heartbeats(d, ttl time.Duration) units { return oneWrite.times(float64(d) / float64(ttl/3)) }

// waiting is what a process reads in d while it waits for one key and polls as
// seldom as it ever does, every most. Each look at the holder's session, a
// third of its ttl after the one before, is a poll of its own and a read of the
// session.
func waiting(d, ttl, most time.Duration) units {
	look := (ttl / 3).Seconds()
	return oneRead.times((math.Floor(look/(jitter*most.Seconds())) + 2) * d.Seconds() / look)
}

// wait counts the reads of somebody who begins to wait for a key and goes on
// for d: of the key, and of the holder's session.
func wait(d, ttl time.Duration) (polls, looks float64) {
	look := (ttl / 3).Seconds()
	waited, looked := 0.0, 0.0
	for looks = 1; ; polls++ { // the first look comes of the write that failed
		if waited-looked >= look-1e-9 {
			looked = waited
			looks++
		}
		pause := jitter * min(max(waited/10, pollMin.Seconds()), pollMax.Seconds())
		if waited += min(pause, look-(waited-looked)); waited > d.Seconds() {
			return polls, looks
		}
	}
}

// listing is what it takes to list n rows of so many bytes, with eventual consistency.
func listing(n, size float64) units { return oneRead.times(math.Ceil(n*size/4096) / 2) }

// pooling is what all members of a pool read to make one plan each: sessions,
// and partitions with small checkpoints.
func pooling(members, partitions float64) units {
	return listing(members, 600).plus(listing(partitions, 300)).times(members)
}

func TestTheFiguresOfTheCostPage(t *testing.T) {
	t.Parallel()
	const page = repository + "/docs/cost.md"
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	document := string(text)
	for name, table := range map[string]string{
		"operations": operationsTable(), "ttl": ttlTable(), "locks": locksTable(), "polls": pollsTable(),
		"workloads": workloadsTable(),
		"recipes":   recipesTable(t),
	} {
		begin, end := "<!-- table "+name+" -->\n\n", "\n<!-- end -->"
		before, rest, ok := strings.Cut(document, begin)
		require.True(t, ok, "no table %s in %s", name, page)
		found, after, ok := strings.Cut(rest, end)
		require.True(t, ok, "table %s does not end", name)
		if *updateCost {
			document = before + begin + table + end + after
			continue
		}
		require.Equal(t, table, found, "table %s: if the new figures are right, run: go test -run Cost ./tests -update-cost",
			name)
	}
	require.Contains(t, document, fmt.Sprintf("$%v per million write request units and $%v per million read request units",
		pricePerMillionWrites, pricePerMillionReads))
	if *updateCost {
		require.NoError(t, os.WriteFile(page, []byte(document), 0o644))
	}
}

// What a write costs depends on the size of its row: the page counts one unit
// for a row of up to a KB.
func TestTheRowsOfTheCostPageAreOfOneUnit(t *testing.T) {
	t.Parallel()
	server := dynamomem.New()
	server.CreateTable("locks", "id", "name")
	store, err := dynamokv.New(server.Client(), "locks")
	require.NoError(t, err)
	client, err := lease.New(store)
	require.NoError(t, err)
	l, err := client.Acquire(t.Context(), "orders/2026-11-23/eu-central-1")
	require.NoError(t, err)
	pairs, err := store.List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, pairs, 2, "a session and a lease")
	for _, pair := range pairs {
		size := 0
		for name, value := range server.Item("locks", "dynalock", pair.Key) {
			size += len(name) + valueSize(t, value)
		}
		require.Less(t, size, 700, "of 1,024 bytes: %s", pair)
	}
	require.NoError(t, l.Release(t.Context()))
	require.NoError(t, client.Close(t.Context()))
}

// What a waiter reads in an hour is counted, on a store that cannot watch, and
// must be what the page's formula gives.
func TestWaitingTakesTheReadsOfTheCostPage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		reads := &readCounter{Store: memkv.New()}
		holder, err := lease.New(reads)
		require.NoError(t, err)
		waiter, err := lease.New(reads)
		require.NoError(t, err)
		l, err := holder.Acquire(t.Context(), "key")
		require.NoError(t, err)
		for _, d := range polledAfter {
			reads.n.Store(0)
			ctx, cancel := context.WithTimeout(t.Context(), d)
			_, err = waiter.Acquire(ctx, "key")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			cancel()
			polls, looks := wait(d, lease.DefaultTTL)
			require.InEpsilon(t, polls+looks, float64(reads.n.Load()), 0.05+1.5/d.Seconds(), "after %v", d)
		}
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, waiter.Close(t.Context()))
		require.NoError(t, holder.Close(t.Context()))
	})
}

// readCounter counts the reads of a store, and hides what else it can do.
type readCounter struct {
	kv.Store
	n atomic.Int64
}

func (c *readCounter) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	c.n.Add(1)
	return c.Store.Get(ctx, key, options...)
}

// valueSize is at least what DynamoDB counts for a value.
func valueSize(t *testing.T, value types.AttributeValue) int {
	t.Helper()
	switch v := value.(type) {
	case *types.AttributeValueMemberS:
		return len(v.Value)
	case *types.AttributeValueMemberB:
		return len(v.Value)
	case *types.AttributeValueMemberN:
		return 21
	case *types.AttributeValueMemberBOOL:
		return 1
	}
	require.Fail(t, "a value of another type", "%T", value)
	return 0
}

func operationsTable() string {
	rows := [][]string{{"Operation", "Write units", "Read units", "$ per million operations"}}
	for _, row := range []struct {
		name string
		units
	}{
		{"first acquire of a process: its session, in addition", oneWrite},
		{"acquire a free key", oneWrite},
		{"try a held key, its holder not seen of late", oneWrite.plus(oneRead)},
		{"try a held key, its holder seen a moment ago", oneWrite},
		{"release", oneWrite},
		{"acquire and release", oneWrite.times(2)},
		{"heartbeat, for any number of leases", oneWrite},
		{"one poll of a waiter", oneRead},
		{"a waiter's look at the holder's session", oneRead},
		{"close, with any number of leases", oneWrite},
		{"take over 100 leases of a dead session", oneWrite.times(1 + 100)},
	} {
		rows = append(rows, []string{row.name, whole(row.writes), whole(row.reads), money(row.times(1e6).dollars())})
	}
	return markdown(rows)
}

func ttlTable() string {
	rows := [][]string{{"TTL", "Heartbeat every", "Writes a month", "$ a month",
		"A waiter gets a dead holder's key within"}}
	for _, ttl := range []time.Duration{3 * time.Second, 6 * time.Second, 15 * time.Second, time.Minute, 10 * time.Minute,
		time.Hour} {
		u := heartbeats(month, ttl)
		within := time.Duration(float64(ttl+ttl/16+ttl/3)*1.03) + pollMax
		rows = append(rows, []string{short(ttl), short(ttl / 3), whole(u.writes), money(u.dollars()),
			short(within.Round(100*time.Millisecond)) + " and its requests"})
	}
	return markdown(rows)
}

func locksTable() string {
	rows := [][]string{{"Locks", "Processes", "dynalock: writes a month", "$ a month",
		"One heartbeat per lock: writes a month", "$ a month", "per second"}}
	for _, locks := range []float64{1, 100, 10_000} {
		for _, processes := range []float64{1, 10, 100} {
			ours := heartbeats(month, lease.DefaultTTL).times(processes)
			theirs := heartbeats(month, lease.DefaultTTL).times(locks)
			rows = append(rows, []string{
				whole(locks), whole(processes), whole(ours.writes), money(ours.dollars()),
				whole(theirs.writes), money(theirs.dollars()), fmt.Sprintf("%.1f", theirs.writes/month.Seconds()),
			})
		}
	}
	return markdown(rows)
}

var polledAfter = []time.Duration{time.Second, 10 * time.Second, time.Minute, time.Hour}

func pollsTable() string {
	rows := [][]string{{"Waited for", "Reads of the key", "Reads of the holder's session", "$ per million such waits"}}
	for _, d := range polledAfter {
		polls, looks := wait(d, lease.DefaultTTL)
		u := oneWrite.plus(oneRead.times(polls + looks))
		rows = append(rows, []string{short(d), whole(polls), whole(looks), money(u.times(1e6).dollars())})
	}
	return markdown(rows)
}

func workloadsTable() string {
	rows := [][]string{{"Workload, for a month", "Write units", "Read units", "$ a month"}}
	beat := heartbeats(month, lease.DefaultTTL)
	perDay := month.Hours() / 24
	for _, row := range []struct {
		name string
		units
	}{
		{"an idle process that has acquired once and is not closed", beat},
		{"2 processes, one leads, one waits", beat.times(2).plus(waiting(month, lease.DefaultTTL, pollMax))},
		{"10 processes, one leads, nine wait", beat.times(10).plus(waiting(month, lease.DefaultTTL, pollMax).times(9))},
		{"the same, polling every 5 s (`lease.WithPoll`)",
			beat.times(10).plus(waiting(month, lease.DefaultTTL, 5*time.Second).times(9))},
		{"10 processes share 100 partitions by a `pool.Pool`",
			beat.times(10).plus(pooling(10, 100).times(month.Seconds() / 10))},
		{"the same, planning once a minute (`pool.WithPlanInterval`)",
			beat.times(10).plus(pooling(10, 100).times(month.Seconds() / 60))},
		{"the same 100 leases, held without listing", beat.times(10)},
		{"a mutex taken and released 10 times a second, by one process", beat.plus(oneWrite.times(2 * 10 * month.Seconds()))},
		{"a cron job: every minute 5 processes start, try one lock and close",
			oneWrite.times(perDay * 24 * 60 * (5*1 + 1 + 4 + 1 + 5)).plus(oneRead.times(perDay * 24 * 60 * 4))},
	} {
		rows = append(rows, []string{row.name, whole(row.writes), whole(row.reads), money(row.dollars())})
	}
	return markdown(rows)
}

// markdown renders a table whose first row is its heading; all columns but the first are numbers.
func markdown(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|---|%s\n", strings.Repeat("---:|", len(row)-1))
		}
	}
	return b.String()
}

// whole writes a number without decimals, with commas between thousands.
func whole(n float64) string {
	digits := fmt.Sprintf("%.0f", n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// money writes dollars to a tenth of a cent below one, to a cent below a thousand.
func money(d float64) string {
	switch {
	case d == 0:
		return "0"
	case d < 1:
		return fmt.Sprintf("%.3f", math.Round(d*1000)/1000)
	case d < 1000:
		return fmt.Sprintf("%.2f", math.Round(d*100)/100)
	}
	return whole(d)
}

// short writes a duration without its zero parts.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	return strings.TrimSuffix(s, "h0m") + map[bool]string{true: "h"}[strings.HasSuffix(s, "h0m")]
}
