package tests_test

import (
	"cmp"
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
		e := recipeEvent{Key: l.Key(), Token: l.Token(), From: machineTime()}
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
		e.Ended = true
		say(e)
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
		r := &recipeProcesses{
			t: t, env: []string{recipeMode + "=rwmutex", recipeStore + "=" + where}, died: map[int]time.Duration{},
		}
		var all []*recipeProcess
		for range 4 {
			all = append(all, r.start())
		}
		r.storm(all, time.Second)
		r.requireGoesOn(func(holds map[string]int) bool {
			reads, writes := 0, 0
			for key, n := range holds {
				if isWriter(recipeEvent{Key: key}) {
					writes += n
				} else {
					reads += n
				}
			}
			return reads >= 20 && writes > 0
		})
		for _, p := range all {
			r.kill(p)
		}
		holds := r.lastSaid()
		reads := slices.DeleteFunc(slices.Clone(holds), isWriter)
		t.Logf("%d reads, %d writes", len(reads), len(holds)-len(reads))
		requireReadersOrAWriter(t, holds)
		requireOrder(t, holds)
	})
}

// lastSaid is what was said last of each hold, in the order of their begin. Who
// was stopped and then killed has not trusted it until then.
func (r *recipeProcesses) lastSaid() []recipeEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := map[string]recipeEvent{}
	for _, e := range r.said {
		last[fmt.Sprint(e.PID, e.Key, e.Token)] = e
	}
	return slices.SortedFunc(maps.Values(last), func(a, b recipeEvent) int { return cmp.Compare(a.From, b.From) })
}

func isWriter(e recipeEvent) bool { return strings.HasSuffix(e.Key, "/w") }

// requireReadersOrAWriter requires that nobody trusted the lock beside a writer
// that did.
func requireReadersOrAWriter(t *testing.T, holds []recipeEvent) {
	t.Helper()
	together := 0
	for i, e := range holds {
		require.Empty(t, e.Value, "%+v", e)
		for _, other := range holds[:i] {
			if other.To < e.From {
				continue
			}
			require.False(t, isWriter(e) || isWriter(other), "both trusted the lock: %+v and %+v", other, e)
			together++
		}
	}
	require.Positive(t, together, "readers read together")
}

// requireOrder requires that the resource served nobody between two acts of one
// whom that excludes.
func requireOrder(t *testing.T, holds []recipeEvent) {
	t.Helper()
	acts, served := map[uint64]int{}, 0
	for i, e := range holds {
		for _, place := range e.Acts {
			acts[place] = i
		}
		served += len(e.Acts)
	}
	require.Len(t, acts, served, "each act has a place")
	for i, e := range holds {
		if len(e.Acts) < 2 {
			continue
		}
		for place := e.Acts[0]; place < e.Acts[len(e.Acts)-1]; place++ {
			other, known := acts[place]
			if known && other != i {
				require.False(t, isWriter(e) || isWriter(holds[other]),
					"served in the middle of another: %+v, %+v", e, holds[other])
			}
		}
	}
}
