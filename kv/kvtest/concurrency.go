package kvtest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

var concurrencyScenarios = []scenario{
	{"OneCreateWins", testOneCreateWins},
	{"OneDeleteWins", testOneDeleteWins},
	{"IncrementsSumUp", testIncrementsSumUp},
	{"UpdatesSumUp", testUpdatesSumUp},
	{"CreateAndDeleteAlternate", testCreateAndDeleteAlternate},
	{"OnlyALivePairRefusesACreate", testOnlyALivePairRefusesACreate},
	{"BlindWritesNeverReuseAVersion", testBlindWritesNeverReuseAVersion},
}

// workers is how many goroutines contend, half of them on each handle; rounds
// how often each writes.
const (
	workers = 8
	rounds  = 10
)

// contend runs fn in all workers at once, and requires that none fails. ctx
// ends when one has, so that no other waits for what that one has left undone,
// and when they take too long: a worker that loops looks at ctx.
func (e *env) contend(t *testing.T, fn func(ctx context.Context, worker int, store kv.Store) error) {
	t.Helper()
	ctx, cancel := clock.System.WithTimeout(e.ctx, 3*e.waitLimit)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	start := make(chan struct{})
	for worker := range workers {
		store := e.store
		if worker%2 == 1 {
			store = e.other
		}
		group.Go(func() error {
			<-start
			return fn(ctx, worker, store)
		})
	}
	close(start)
	require.NoError(t, group.Wait())
}

func testOneCreateWins(t *testing.T, e *env) {
	for round := range rounds {
		name := fmt.Sprint(round)
		won := make([]*kv.KVPair, workers)
		e.contend(t, func(ctx context.Context, worker int, store kv.Store) (err error) {
			won[worker], err = store.AtomicPut(ctx, e.key(name), kv.WithString(fmt.Sprint(worker)))
			if errors.Is(err, kv.ErrKeyExists) {
				return nil
			}
			return err
		})
		winners := 0
		for worker, pair := range won {
			if pair != nil {
				winners++
				require.Equal(t, fmt.Sprint(worker), pair.String())
				samePair(t, pair, e.get(t, name))
			}
		}
		require.Equal(t, 1, winners)
	}
}

func testOneDeleteWins(t *testing.T, e *env) {
	for round := range rounds {
		name := fmt.Sprint(round)
		pair := e.create(t, name)
		var mu sync.Mutex
		winners := 0
		e.contend(t, func(ctx context.Context, _ int, store kv.Store) error {
			err := store.AtomicDelete(ctx, e.key(name), pair)
			if errors.Is(err, kv.ErrKeyModified) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			winners++
			return err
		})
		require.Equal(t, 1, winners)
		e.absent(t, name)
	}
}

func testIncrementsSumUp(t *testing.T, e *env) {
	first := e.create(t, "n", kv.WithString("0"))
	e.contend(t, func(ctx context.Context, _ int, store kv.Store) error {
		current := first
		for done := 0; done < rounds; {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := strconv.Atoi(current.String())
			if err != nil {
				return err
			}
			next, err := store.AtomicPut(ctx, e.key("n"), kv.WithPrevious(current), kv.WithString(strconv.Itoa(n+1)))
			if lost, ok := errors.AsType[*kv.ConflictError](err); ok && lost.Current != nil {
				current = lost.Current
				continue
			}
			if err != nil {
				return err
			}
			current = next
			done++
		}
		return nil
	})
	require.Equal(t, strconv.Itoa(workers*rounds), e.get(t, "n").String())
}

func testUpdatesSumUp(t *testing.T, e *env) {
	e.contend(t, func(ctx context.Context, _ int, store kv.Store) error {
		for range rounds {
			_, err := kv.Update(ctx, store, e.key("n"), func(current *kv.KVPair) ([]byte, error) {
				if current == nil {
					return []byte("1"), nil
				}
				n, err := strconv.Atoi(current.String())
				return strconv.AppendInt(nil, int64(n+1), 10), err
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	require.Equal(t, strconv.Itoa(workers*rounds), e.get(t, "n").String())
}

// testCreateAndDeleteAlternate uses a key as the simplest lock there is: no two
// hold it, and every holder's version is new.
func testCreateAndDeleteAlternate(t *testing.T, e *env) {
	var mu sync.Mutex
	var last uint64
	holders := 0
	e.contend(t, func(ctx context.Context, _ int, store kv.Store) error {
		for done := 0; done < rounds/2; {
			if err := ctx.Err(); err != nil {
				return err
			}
			pair, err := store.AtomicPut(ctx, e.key("lock"))
			if errors.Is(err, kv.ErrKeyExists) {
				continue
			}
			if err != nil {
				return err
			}
			mu.Lock()
			holders++
			ok := holders == 1 && pair.Version > last
			last = pair.Version
			holders--
			mu.Unlock()
			if !ok {
				return fmt.Errorf("version %d after %d, or two holders", pair.Version, last)
			}
			if err := store.AtomicDelete(ctx, e.key("lock"), pair); err != nil {
				return err
			}
			done++
		}
		return nil
	})
}

// freed knows up to which version a key's pairs are surely dead: versions grow,
// so a pair that was deleted takes all before it along.
type freed struct {
	mu             sync.Mutex
	dead, observed uint64 // seen is the greatest version of which somebody was told
}

func (f *freed) upTo() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dead
}

func (f *freed) see(version uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.observed = max(f.observed, version)
}

// by runs a removal of what has been seen when it begins.
func (f *freed) by(remove func() error) error {
	f.mu.Lock()
	observed := f.observed
	f.mu.Unlock()
	err := remove()
	if err == nil {
		f.mu.Lock()
		f.dead = max(f.dead, observed)
		f.mu.Unlock()
	}
	return err
}

// testOnlyALivePairRefusesACreate: all create one key and delete it again.
// However often it is freed while a create is under way, the create is applied,
// or the pair that stood in its way is told: one that may have been live then.
func testOnlyALivePairRefusesACreate(t *testing.T, e *env) {
	var keys freed
	e.contend(t, func(ctx context.Context, worker int, store kv.Store) error {
		for round := range 5 * rounds {
			dead := keys.upTo()
			pair, err := store.AtomicPut(ctx, e.key("k"), kv.WithString(fmt.Sprint(worker, " ", round)))
			if lost, ok := errors.AsType[*kv.ConflictError](err); ok {
				switch pair = lost.Current; {
				case !lost.Create || !errors.Is(err, kv.ErrKeyExists):
					return fmt.Errorf("the conflict is not one of a create: %w", err)
				case pair == nil:
					return fmt.Errorf("no live pair refused the create: %w", err)
				case pair.Key != e.key("k") || pair.Version != lost.Version || pair.String() == "":
					return fmt.Errorf("pair %+v is not the one of version %d", pair, lost.Version)
				case pair.Version <= dead:
					return fmt.Errorf("version %d refused the create, but all up to %d were dead", pair.Version, dead)
				}
			} else if err != nil {
				return err
			}
			keys.see(pair.Version)
			err = keys.by(func() error {
				if round%4 > 0 {
					return store.Delete(ctx, e.key("k"))
				}
				return store.AtomicDelete(ctx, e.key("k"), pair)
			})
			if err != nil && !errors.Is(err, kv.ErrKeyModified) {
				return err
			}
		}
		return nil
	})
}

func testBlindWritesNeverReuseAVersion(t *testing.T, e *env) {
	var mu sync.Mutex
	observed := map[uint64]string{}
	e.contend(t, func(ctx context.Context, worker int, store kv.Store) error {
		var last uint64
		for round := range rounds {
			value := fmt.Sprint(worker, " ", round)
			if err := store.Put(ctx, e.key("k"), kv.WithString(value)); err != nil {
				return err
			}
			pair, err := store.Get(ctx, e.key("k"))
			if err != nil {
				return err
			}
			mu.Lock()
			before, known := observed[pair.Version]
			observed[pair.Version] = pair.String()
			mu.Unlock()
			if known && before != pair.String() || pair.Version < last {
				return fmt.Errorf("version %d (last read: %d) is of %q and of %q", pair.Version, last, before, pair.String())
			}
			last = pair.Version
		}
		return nil
	})
}
