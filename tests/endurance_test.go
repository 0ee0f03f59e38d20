package tests_test

import (
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

const (
	enduredCycles = 200_000
	enduredLosses = 2_000
)

// usage is what a process has in use. A timer that nobody stopped is an object on the heap.
type usage struct {
	goroutines     int
	objects, bytes uint64
}

// inUse counts what is left when every goroutine of the bubble waits and the
// garbage is collected. Stopped timers leave the runtime's heap no later than
// when they would have fired.
func inUse() usage {
	time.Sleep(time.Minute)
	synctest.Wait()
	for range 3 { // the first two empty every sync.Pool
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{runtime.NumGoroutine(), m.HeapObjects, m.HeapAlloc}
}

// requireNoMore allows for maps that have grown and for what the runtime itself
// keeps, far less than one object per repetition.
func requireNoMore(t *testing.T, began usage, when string) {
	t.Helper()
	now := inUse()
	t.Logf("%s: %d goroutines, %d objects, %d KiB; it began with %d, %d, %d", when,
		now.goroutines, now.objects, now.bytes>>10, began.goroutines, began.objects, began.bytes>>10)
	require.LessOrEqual(t, now.goroutines, began.goroutines, when)
	require.LessOrEqual(t, now.objects, began.objects+500, when)
	require.LessOrEqual(t, now.bytes, began.bytes+256<<10, when)
}

// Not parallel, nor is the next: they count what the whole process has.
func TestManyCyclesLeaveNothingBehind(t *testing.T) {
	if testing.Short() {
		t.Skip("a long run")
	}
	synctest.Test(t, func(t *testing.T) {
		empty := inUse()
		endureCycles(t)
		requireNoMore(t, empty, "after Close")
	})
}

func endureCycles(t *testing.T) {
	client, err := lease.New(memkv.New())
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close(context.Background())) }()
	cycles(t, client, enduredCycles/100) // which opens the session and fills what is kept for reuse
	began := inUse()
	cycles(t, client, repetitions(enduredCycles))
	requireNoMore(t, began, "after the cycles")
}

// repetitions is a tenth of n under the race detector, which makes them ten
// times slower and finds its races sooner.
func repetitions(n int) int {
	if info, ok := debug.ReadBuildInfo(); ok &&
		slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return n / 10
	}
	return n
}

// cycles acquires and releases n times in eight goroutines: a key of its own,
// one for which all wait, one that nobody had before, and one with a bound, a
// value and an update.
func cycles(t *testing.T, client *lease.Client, n int) {
	t.Helper()
	const workers = 8
	var wait sync.WaitGroup
	var failed atomic.Pointer[error]
	for worker := range workers {
		wait.Go(func() {
			for i := range n / workers {
				if err := cycle(t.Context(), client, worker, i); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wait.Wait()
	if err := failed.Load(); err != nil {
		require.NoError(t, *err)
	}
}

func cycle(ctx context.Context, client *lease.Client, worker, i int) error {
	key, options := "own/"+strconv.Itoa(worker), []lease.AcquireOption(nil)
	switch i % 4 {
	case 1:
		key = "shared"
	case 2:
		key += "/" + strconv.Itoa(i)
	case 3:
		options = []lease.AcquireOption{lease.KeepValue(), lease.WithMaxHold(time.Minute)}
		key = "kept/" + strconv.Itoa(worker)
	}
	l, err := client.Acquire(ctx, key, options...)
	if err != nil {
		return err
	}
	if i%4 == 3 {
		if err := l.Update(ctx, []byte(key)); err != nil {
			return err
		}
	}
	return l.Release(ctx)
}

func TestManyLostSessionsLeaveNothingBehind(t *testing.T) {
	if testing.Short() {
		t.Skip("a long run")
	}
	synctest.Test(t, func(t *testing.T) {
		empty := inUse()
		endureLosses(t)
		requireNoMore(t, empty, "after Close")
	})
}

func endureLosses(t *testing.T) {
	store, silent := memkv.New(), &atomic.Bool{}
	client, err := lease.New(kv.Instrument(store, silencer(silent)), lease.WithTTL(lease.MinTTL))
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close(context.Background())) }()
	loseSessions(t, client, store, silent, enduredLosses/20)
	began := inUse()
	loseSessions(t, client, store, silent, repetitions(enduredLosses))
	after := inUse()
	require.LessOrEqual(t, after.goroutines, began.goroutines)
	// The client remembers which sessions are dead, its own among them, up to a bound (R11).
	require.LessOrEqual(t, after.objects, began.objects+6*enduredLosses)
	rows, err := store.List(t.Context(), "")
	require.NoError(t, err)
	require.LessOrEqual(t, len(rows), 1, "no row but the last session's")
}

// silencer keeps heartbeats from the store for as long as silent is set.
func silencer(silent *atomic.Bool) kv.Hook {
	return func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		if silent.Load() && call.Op == "AtomicPut" && strings.HasPrefix(call.Key, "session/") {
			<-ctx.Done()
			return &kv.UncertainError{Key: call.Key, Err: ctx.Err()}
		}
		return next(ctx)
	}
}

// loseSessions loses n sessions of client with two leases each: by turns
// because its heartbeats do not arrive, and because it was killed.
func loseSessions(t *testing.T, client *lease.Client, store kv.Store, silent *atomic.Bool, n int) {
	t.Helper()
	for i := range n {
		first, err := client.Acquire(t.Context(), "first")
		require.NoError(t, err)
		second, err := client.Acquire(t.Context(), "second/"+strconv.Itoa(i))
		require.NoError(t, err)
		if i%2 == 0 {
			silent.Store(true)
		} else {
			h, err := client.Inspect(t.Context(), "first")
			require.NoError(t, err)
			require.NoError(t, store.Delete(t.Context(), "session/"+h.Session))
		}
		<-first.Context().Done()
		<-second.Context().Done()
		silent.Store(false)
		require.ErrorIs(t, first.Release(t.Context()), lease.ErrLost)
		require.ErrorIs(t, second.Release(t.Context()), lease.ErrLost)
		time.Sleep(2 * lease.MinTTL) // until the old session is ended
		again, err := client.Acquire(t.Context(), "second/"+strconv.Itoa(i))
		require.NoError(t, err)
		require.NoError(t, again.Release(t.Context()))
	}
	rows, err := store.List(t.Context(), "lease/first")
	require.NoError(t, err)
	for _, row := range rows {
		require.NoError(t, store.Delete(t.Context(), row.Key))
	}
}
