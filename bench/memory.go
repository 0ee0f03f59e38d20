package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// inMemory is what the library itself costs: a lock cycle on a store that answers at once.
func inMemory(ctx context.Context, r *rig) (section, error) {
	s := section{
		title:  "The library's own time",
		method: "Acquire and release on memkv, by Go's benchmark, five times; median, and smallest to greatest.",
		table:  [][]string{{"", "Time", "Allocations", "Bytes"}},
	}
	client, err := lease.New(memkv.New())
	if err != nil {
		return s, err
	}
	var micros, allocs, size []float64
	var failed error
	for range pick(r, 5, 1) {
		result := testing.Benchmark(func(b *testing.B) {
			for i := range b.N {
				if r.quick && i > 100 {
					return
				}
				l, err := client.TryAcquire(ctx, "key")
				if err == nil {
					err = l.Release(ctx)
				}
				if err != nil {
					failed = err
					return
				}
			}
		})
		micros = append(micros, float64(result.NsPerOp())/1e3)
		allocs, size = append(allocs, float64(result.AllocsPerOp())), append(size, float64(result.AllocedBytesPerOp()))
	}
	if failed != nil {
		return s, failed
	}
	s.table = append(s.table, []string{"acquire and release", spread(micros, "%.1f") + " µs", spread(allocs, "%.0f"),
		spread(size, "%.0f")})
	return s, closeNow(client)
}

// void is a store that says yes and keeps nothing, so that what memory there is is the client's.
type void struct {
	kv.Store
	version atomic.Uint64
}

func (v *void) AtomicPut(_ context.Context, key string, _ ...kv.WriteOption) (*kv.KVPair, error) {
	return kv.NewPair(key, v.version.Add(1), nil, time.Time{}, nil), nil
}

func (v *void) AtomicDelete(context.Context, string, *kv.KVPair, ...kv.DeleteOption) error {
	return nil
}

// footprint is what a held lease costs the process that holds it.
func footprint(ctx context.Context, r *rig) (section, error) {
	s := section{
		title: "Memory and goroutines per held lease",
		method: "Live heap after two collections and goroutines, with the leases less without, on a store that keeps nothing. The caller keeps the\n" +
			"leases and has asked each for its context.",
		table: [][]string{{"Leases", "Heap per lease", "Goroutines for all"}},
	}
	for _, n := range pick(r, []int{10, 1000, 100_000}, []int{10, 100}) {
		client, err := lease.New(new(void))
		if err != nil {
			return s, err
		}
		if _, err := client.TryAcquire(ctx, "first"); err != nil { // the session's share is not the leases'
			return s, err
		}
		leases := make([]*lease.Lease, n)
		before, running := liveHeap(), runtime.NumGoroutine()
		for i := range leases {
			if leases[i], err = client.TryAcquire(ctx, "key-"+strconv.Itoa(i)); err != nil {
				return s, err
			}
			_ = leases[i].Context()
		}
		heap := float64(int64(liveHeap())-int64(before)) / float64(n)
		s.table = append(s.table, []string{strconv.Itoa(n), fmt.Sprintf("%.0f B", heap),
			strconv.Itoa(runtime.NumGoroutine() - running)})
		runtime.KeepAlive(leases)
		ended, end := context.WithCancel(ctx)
		end()
		_ = client.Close(ended) // the leases are not released, which is its error
	}
	return s, nil
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// planner is what a plan of a Pool takes, as the package's own benchmark has
// it: 100 members and 10,000 partitions.
func planner(ctx context.Context, r *rig) (section, error) {
	s := section{
		title:  "A pool's plan",
		method: "`go test -bench Plan ./pool`: 100 members, 10,000 partitions. Each member makes one per plan interval, 10 s by default.",
		table:  [][]string{{"Start", "Time"}},
	}
	found, err := benchmarks(ctx, "github.com/dynalock/dynalock/pool", "^BenchmarkPlan$", pick(r, "500ms", "1x"))
	for _, b := range found {
		s.table = append(s.table, []string{strings.TrimPrefix(b.name, "Plan/"), ms(b.took)})
	}
	return s, err
}

// reads is what Get of sqlkv takes, beside its statement.
func reads(ctx context.Context, r *rig) (section, error) {
	s := section{
		title: "A read of SQLite",
		method: "`go test -bench SQLiteGet ./tests`: `Get` of a store in a file, and the statement that it sends, prepared once, without the store. The\n" +
			"aim is at most 1.3 times as long.",
		table: [][]string{{"", "Time", "Of the statement's"}},
	}
	found, err := benchmarks(ctx, "github.com/dynalock/dynalock/tests", "^BenchmarkSQLiteGet", pick(r, "1s", "1x"))
	if err != nil {
		return s, err
	}
	for _, b := range found {
		s.table = append(s.table, []string{map[string]string{"SQLiteGet": "Get", "SQLiteGetBySQL": "the statement"}[b.name],
			fmt.Sprintf("%.1f µs", float64(b.took)/1e3), fmt.Sprintf("%.2f", float64(b.took)/float64(found[len(found)-1].took))})
	}
	return s, nil
}

// benchmark is what an operation of one took.
type benchmark struct {
	name string
	took time.Duration
}

var benchmarkLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op`)

// benchmarks runs those of a package, in their order.
func benchmarks(ctx context.Context, pkg, pattern, benchtime string) (found []benchmark, err error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", pattern, "-benchtime", benchtime, pkg)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s%s", err, out, &stderr)
	}
	for _, line := range benchmarkLine.FindAllSubmatch(out, -1) {
		ns, err := strconv.ParseFloat(string(line[2]), 64)
		if err != nil {
			return nil, err
		}
		found = append(found, benchmark{string(line[1]), time.Duration(ns)})
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("no benchmark in %s", out)
	}
	return found, nil
}
