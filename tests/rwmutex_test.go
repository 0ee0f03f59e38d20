package tests_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// twoBars is a resource that processes share: a pair with the greatest epochs
// that it has served. The version of each write is its place in the order of
// all.
type twoBars struct {
	store kv.Store
	key   string
}

type barsRecord struct {
	Writers uint64 `json:"writers"`
	Readers uint64 `json:"readers"`
}

var errFenced = errors.New("refused by the resource")

// act uses the resource with an epoch. It returns its place.
func (r twoBars) act(ctx context.Context, epoch uint64, writing bool) (place uint64, err error) {
	for {
		var bars barsRecord
		pair, err := r.store.Get(ctx, r.key)
		switch {
		case errors.Is(err, kv.ErrKeyNotFound):
		case err != nil:
			return 0, err
		default:
			if err := pair.Decode(&bars); err != nil {
				return 0, err
			}
		}
		switch {
		case epoch < bars.Writers, writing && epoch <= bars.Readers:
			return 0, errFenced
		case writing:
			bars.Writers = epoch
		default:
			bars.Readers = max(bars.Readers, epoch)
		}
		written, err := r.store.AtomicPut(ctx, r.key, kv.WithJSON(bars), kv.WithPrevious(pair))
		if err == nil {
			return written.Version, nil
		}
		if !errors.Is(err, kv.ErrKeyModified) && !errors.Is(err, kv.ErrKeyExists) {
			return 0, err
		}
	}
}

// share reads with three goroutines and writes with one, until the process is
// killed. A holder acts without another look at its lock, as one does that was
// stopped in between.
func share(ctx context.Context, client *lease.Client, say func(recipeEvent)) error {
	m := lock.NewRWMutex(client, "cache")
	resource := twoBars{client.Store(), "resource"}
	hold := func(l *lease.Lease, epoch uint64, writing bool) {
		e := recipeEvent{Key: l.Key(), Token: l.Token(), Epoch: epoch, From: machineTime()}
		e.To = e.From
		say(e)
		for range 2 + rand.IntN(2) {
			at := machineTime()
			if l.Held() {
				e.To = at
			}
			held := l.Held()
			place, err := resource.act(ctx, epoch, writing)
			switch {
			case err == nil:
				e.Acts = append(e.Acts, place)
			case errors.Is(err, errFenced) && held && l.Held():
				e.Value = "refused, although it holds the lock"
			}
			say(e)
			time.Sleep(time.Duration(20+rand.IntN(50)) * time.Millisecond)
		}
	}
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for {
				if l, err := m.RLock(ctx); err == nil {
					hold(l.Lease(), l.Epoch(), false)
					_ = l.Release(ctx)
				}
			}
		})
	}
	all.Go(func() {
		for {
			if l, err := m.Lock(ctx); err == nil {
				hold(l, l.Token(), true)
				_ = l.Release(ctx)
			}
			time.Sleep(time.Duration(200+rand.IntN(1000)) * time.Millisecond)
		}
	})
	all.Wait()
	return nil
}

func TestI14RWMutexOfProcesses(t *testing.T) {
	recipeStores(t, func(t *testing.T, where string) {
		r := startRecipes(t, 4, "rwmutex", where)
		kills, stops := r.storm(recipesFor(), 2500*time.Millisecond)
		r.recover(func(since []recipeEvent) bool {
			_, together := checkShared(since)
			return together > 0 && slices.ContainsFunc(since, isWriter)
		})
		holds := r.lastSaid()
		reads := slices.DeleteFunc(slices.Clone(holds), isWriter)
		violations, together := checkShared(holds)
		t.Logf("%d kills, %d stops, %d reads, %d writes, %d pairs of readers at once",
			kills, stops, len(reads), len(holds)-len(reads), together)
		require.Empty(t, violations)
	})
}

func isWriter(e recipeEvent) bool { return strings.HasSuffix(e.Key, "/w") }

// checkShared returns what must not be among holds of readers and writers, in the
// order of their begin, and how many pairs of readers trusted the lock together.
func checkShared(holds []recipeEvent) (violations []string, together int) {
	for i, e := range holds {
		if e.Value != "" {
			violations = append(violations, fmt.Sprintf("%s: %+v", e.Value, e))
		}
		for _, other := range holds[:i] {
			switch {
			case other.To < e.From:
			case isWriter(e) || isWriter(other):
				violations = append(violations, fmt.Sprintf("both trust the lock: %+v, %+v", other, e))
			default:
				together++
			}
		}
	}
	return append(violations, checkServed(holds)...), together
}

// checkServed returns what the resource must not have served: anybody between two
// acts of one whom that excludes, a reader below a writer, or a writer that is not
// above all before it.
func checkServed(holds []recipeEvent) (violations []string) {
	acts := map[uint64]int{} // the hold, by its place
	for i, e := range holds {
		for _, place := range e.Acts {
			if other, twice := acts[place]; twice {
				violations = append(violations, fmt.Sprintf("one place: %+v, %+v", holds[other], e))
			}
			acts[place] = i
		}
	}
	var bars barsRecord
	var served []int      // the hold of each act
	last := map[int]int{} // its last act, by hold
	for n, place := range slices.Sorted(maps.Keys(acts)) {
		i := acts[place]
		e := holds[i]
		switch {
		case isWriter(e) && (e.Epoch < bars.Writers || e.Epoch <= bars.Readers):
			violations = append(violations, fmt.Sprintf("a writer at %+v: %+v", bars, e))
		case isWriter(e):
			bars.Writers = e.Epoch
		case e.Epoch < bars.Writers:
			violations = append(violations, fmt.Sprintf("a reader at %+v: %+v", bars, e))
		default:
			bars.Readers = max(bars.Readers, e.Epoch)
		}
		if before, ok := last[i]; ok {
			for _, between := range served[before+1:] {
				if isWriter(e) || isWriter(holds[between]) {
					violations = append(violations, fmt.Sprintf("%+v between two acts of %+v", holds[between], e))
				}
			}
		}
		last[i], served = n, append(served, i)
	}
	return violations
}

// The check's own test.
func TestCheckShared(t *testing.T) {
	reader := func(client string, epoch uint64, from, to time.Duration, acts ...uint64) recipeEvent {
		return recipeEvent{Key: "rw/m/r/" + client, Epoch: epoch, From: from, To: to, Acts: acts}
	}
	writer := func(epoch uint64, from, to time.Duration, acts ...uint64) recipeEvent {
		return recipeEvent{Key: "rw/m/w", Epoch: epoch, From: from, To: to, Acts: acts}
	}
	refused := reader("a", 1, 0, 10)
	refused.Value = "refused"
	for want, holds := range map[string][]recipeEvent{
		"":                      {reader("a", 1, 0, 10, 1, 3), reader("b", 1, 5, 15, 2, 4), writer(2, 20, 30, 5, 6)},
		"refused":               {refused},
		"both trust the lock":   {reader("a", 1, 0, 10), writer(2, 10, 20)},
		"both trust the lock: ": {writer(1, 0, 10), reader("a", 1, 5, 20)},
		"one place":             {reader("a", 1, 0, 10, 1), reader("b", 1, 5, 15, 1)},
		"a writer at":           {reader("a", 2, 0, 10, 1), writer(2, 20, 30, 2)},
		"a writer at ":          {writer(2, 0, 10, 1), writer(1, 20, 30, 2)},
		"a reader at":           {writer(2, 0, 10, 1), reader("a", 1, 20, 30, 2)},
		"between two acts":      {reader("a", 1, 0, 10, 1, 3), writer(2, 20, 30, 2)},
		"between two acts of":   {writer(1, 0, 10, 1, 3), reader("a", 1, 20, 30, 2)},
		"between two acts of ":  {writer(1, 0, 10, 1, 3), writer(1, 20, 30, 2)},
	} {
		violations, _ := checkShared(holds)
		if want == "" {
			require.Empty(t, violations)
			continue
		}
		require.Contains(t, fmt.Sprint(violations), want)
	}
}
