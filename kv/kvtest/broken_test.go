package kvtest_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/kvtest"
	"github.com/dynalock/dynalock/kv/memkv"
)

// brokenStore names, in the environment of a child process, the broken store
// that it runs the suite on.
const brokenStore = "DYNALOCK_TEST_BROKEN_STORE"

// sound is a store whose methods the broken ones replace one by one. It hides
// what memkv implements besides kv.Store.
type sound struct{ kv.Store }

func (sound) MaxWriteDelay() time.Duration { return 0 }

// broken are stores that break one promise each, and the groups of the suite of
// which at least one must fail.
var broken = map[string]struct {
	open func() kv.Store
	run  string
}{
	"condition dropped":          {func() kv.Store { return &unconditional{sound{memkv.New()}} }, "Atomic"},
	"delete ignores its version": {func() kv.Store { return &unconditionalDelete{sound{memkv.New()}} }, "Atomic"},
	"versions start anew": {func() kv.Store {
		return &forgetful{sound: sound{memkv.New()}, base: map[string]uint64{}}
	}, "Atomic"},
	"expiry ignored": {func() kv.Store { return &eternal{sound{memkv.New()}} },
		"TTL/AnExpiredPairIsAbsentEverywhere"},
	"values shared": {func() kv.Store {
		return &sharing{sound: sound{memkv.New()}, pairs: map[string]*kv.KVPair{}}
	}, "Basic"},
	"listings not sorted":        {func() kv.Store { return &unsorted{sound{memkv.New()}} }, "List"},
	"conflicts without the pair": {func() kv.Store { return &terse{sound{memkv.New()}} }, "Atomic"},
	"ends ignored":               {func() kv.Store { return &deaf{sound{memkv.New()}} }, "Misuse"},
	"values kept": {func() kv.Store {
		return &keeping{sound: sound{memkv.New()}, values: map[string][]byte{}}
	}, "Basic"},
	"prefix lists siblings":    {func() kv.Store { return &greedy{sound{memkv.New()}} }, "List"},
	"prefix deletes siblings":  {func() kv.Store { return &greedy{sound{memkv.New()}} }, "Functions"},
	"page loses its last pair": {func() kv.Store { return &leaky{sound{memkv.New()}} }, "List"},
	"first page is the last":   {func() kv.Store { return &hasty{sound{memkv.New()}} }, "List"},
	"versions restart in a race": {func() kv.Store {
		return &forgetful{sound: sound{memkv.New()}, base: map[string]uint64{}}
	}, "Concurrency/CreateAndDeleteAlternate"},
	"deletes that do nothing": {func() kv.Store { return &undeleting{sound{memkv.New()}} }, "Concurrency"},
	"pages without end":       {func() kv.Store { return &circular{sound{memkv.New()}} }, "Functions"},
	"open for ever":           {func() kv.Store { return &ajar{sound{memkv.New()}} }, "Misuse/CloseDuringUse"},
	"nothing refuses a create": {func() kv.Store { return &haunted{sound: sound{memkv.New()}} },
		"Concurrency/OnlyALivePair"},
	"a dead pair refuses one": {func() kv.Store { return &haunted{sound: sound{memkv.New()}, shows: true} },
		"Concurrency/OnlyALivePair"},
	"a lost create is a success": {func() kv.Store { return &forgiving{sound{memkv.New()}} },
		"Concurrency/OneCreateWins"},
	"watch repeats itself":        {watched(repeating), "Watch/PairsThenSyncedThenChanges"},
	"watch misses writes":         {watched(deafToPuts), "Watch/TheLatestStateComes"},
	"watch misses deletes":        {watched(deafToDeletes), "Watch/PairsThenSyncedThenChanges"},
	"watch misses what was there": {watched(startsSynced), "Watch/PairsThenSyncedThenChanges"},
	"watch misses expiry":         {watched(deafToExpiry), "Watch/ExpiryIsADelete"},
	"watch is out of order":       {watched(disordered), "Watch/PairsThenSyncedThenChanges"},
	"watch has no synced mark":    {watched(unsynced), "Watch/OfNothing"},
	"watch is synced too late":    {watched(syncedLast), "Watch/PairsThenSyncedThenChanges"},
	"watch leaves a goroutine":    {func() kv.Store { return &leaving{sound{memkv.New()}} }, "Watch/LeavesNoGoroutine"},
	"watch never ends":            {watched(restless), "Watch/TheLatestStateComes"},
	"watch outlives its context":  {func() kv.Store { return &endless{sound{memkv.New()}} }, "Watch/EndsWithItsContext"},
}

// watched opens a sound store with a spoiled watch.
func watched(relay func() func(kv.Event, func(kv.Event) bool) bool) func() kv.Store {
	return func() kv.Store { return &watching{sound{memkv.New()}, relay} }
}

// unconditional writes whatever WithPrevious says.
type unconditional struct{ sound }

func (s *unconditional) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	pair, err := s.sound.AtomicPut(ctx, key, options...)
	if conflict, lost := errors.AsType[*kv.ConflictError](err); lost && conflict.Current != nil {
		return s.sound.AtomicPut(ctx, key, append(slices.Clone(options), kv.WithPrevious(conflict.Current))...)
	}
	return pair, err
}

// unconditionalDelete deletes whatever version there is.
type unconditionalDelete struct{ sound }

func (s *unconditionalDelete) AtomicDelete(ctx context.Context, key string, previous *kv.KVPair,
	options ...kv.DeleteOption) error {
	err := s.sound.AtomicDelete(ctx, key, previous, options...)
	if conflict, lost := errors.AsType[*kv.ConflictError](err); lost && conflict.Current != nil {
		return s.sound.AtomicDelete(ctx, key, conflict.Current, options...)
	}
	return err
}

// forgetful counts the versions of a key from 1 again after it was deleted.
type forgetful struct {
	sound
	mu   sync.Mutex
	base map[string]uint64 // the version before the first of each key
}

func (s *forgetful) shown(pair *kv.KVPair) *kv.KVPair {
	if pair == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.base[pair.Key]; !ok {
		s.base[pair.Key] = pair.Version - 1
	}
	pair.Version -= s.base[pair.Key]
	return pair
}

func (s *forgetful) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	pair, err := s.sound.Get(ctx, key, options...)
	return s.shown(pair), err
}

func (s *forgetful) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	settings, err := kv.AtomicPutSettings(key, options)
	if err != nil {
		return nil, err
	}
	if settings.Previous != nil {
		options = append(slices.Clone(options), kv.WithPrevious(s.meant(settings.Previous)))
	}
	pair, err := s.sound.AtomicPut(ctx, key, options...)
	return s.shown(pair), err
}

func (s *forgetful) AtomicDelete(ctx context.Context, key string, previous *kv.KVPair,
	options ...kv.DeleteOption) error {
	err := s.sound.AtomicDelete(ctx, key, s.meant(previous), options...)
	if err == nil {
		s.forget(key)
	}
	return err
}

func (s *forgetful) Delete(ctx context.Context, key string, options ...kv.DeleteOption) error {
	s.forget(key)
	return s.sound.Delete(ctx, key, options...)
}

func (s *forgetful) meant(pair *kv.KVPair) *kv.KVPair {
	if pair == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mapped := pair.Clone()
	mapped.Version += s.base[pair.Key]
	return mapped
}

func (s *forgetful) forget(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.base, key)
}

// eternal lets nothing expire: it says when a pair should, and keeps it.
type eternal struct{ sound }

func (s *eternal) Put(ctx context.Context, key string, options ...kv.WriteOption) error {
	return s.sound.Put(ctx, key, longer(options)...)
}

func (s *eternal) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	return s.sound.AtomicPut(ctx, key, longer(options)...)
}

func longer(options []kv.WriteOption) []kv.WriteOption {
	if settings, err := kv.PutSettings("k", options); err == nil && settings.TTL > 0 {
		return append(slices.Clone(options), kv.WithTTL(settings.TTL+24*time.Hour))
	}
	return options
}

// sharing gives all its readers the same pair.
type sharing struct {
	sound
	mu    sync.Mutex
	pairs map[string]*kv.KVPair
}

func (s *sharing) Get(ctx context.Context, key string, options ...kv.ReadOption) (*kv.KVPair, error) {
	pair, err := s.sound.Get(ctx, key, options...)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if shared := s.pairs[key]; shared != nil && shared.Version == pair.Version {
		return shared, nil
	}
	s.pairs[key] = pair
	return pair, nil
}

// unsorted lists backwards.
type unsorted struct{ sound }

func (s *unsorted) List(ctx context.Context, prefix string, options ...kv.ReadOption) ([]*kv.KVPair, error) {
	pairs, err := s.sound.List(ctx, prefix, options...)
	slices.Reverse(pairs)
	return pairs, err
}

// terse does not show the pair that won.
type terse struct{ sound }

func (s *terse) AtomicPut(ctx context.Context, key string, options ...kv.WriteOption) (*kv.KVPair, error) {
	pair, err := s.sound.AtomicPut(ctx, key, options...)
	if conflict, lost := errors.AsType[*kv.ConflictError](err); lost {
		conflict.Current = nil
	}
	return pair, err
}

// deaf does not hear that a context has ended.
type deaf struct{ sound }

func (s *deaf) Put(ctx context.Context, key string, options ...kv.WriteOption) error {
	return s.sound.Put(context.WithoutCancel(ctx), key, options...)
}

// TestBrokenChild is the suite on a broken store, or on none of them, in a
// process of the tests below.
func TestBrokenChild(t *testing.T) {
	name := os.Getenv(brokenStore)
	h := kvtest.Harness{Open: func(*testing.T) kv.Store { return &sound{memkv.New()} }}
	if store, ok := broken[name]; ok {
		h.Open, h.Patience = func(*testing.T) kv.Store { return store.open() }, 2*time.Second
	} else if name != "none" {
		t.Skip("this is a part of the tests below")
	}
	kvtest.Run(t, h)
}

func TestTheSuiteFindsBrokenStores(t *testing.T) {
	t.Parallel()
	for name, store := range broken {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			output, err := child(t, name, "^TestBrokenChild$/"+store.run)
			_, failed := errors.AsType[*exec.ExitError](err)
			require.True(t, failed, "the suite took it for sound: %v\n%s", err, output)
			require.True(t, bytes.Contains(output, []byte("--- FAIL: TestBrokenChild/"+store.run)),
				"it ended in another way:\n%s", output)
			require.False(t, bytes.Contains(output, []byte("panic:")), "%s", output)
		})
	}
}

// The suite says what it does not test, so that a pass is not taken for more than it is.
func TestTheSuiteNamesWhatItDoesNotTest(t *testing.T) {
	t.Parallel()
	output, err := child(t, "none", "^TestBrokenChild$")
	require.NoError(t, err, "nothing is wrong with this one:\n%s", output)
	for _, want := range []string{
		"Harness.Second", "Harness.CheckHistory", "Harness.Process", "no Close", "kv.Watcher", "kv.ErrIndexNotSupported",
		"--- SKIP: TestBrokenChild/History/IsLinearizable", "--- SKIP: TestBrokenChild/Process/TwoProcessesShare",
		"--- SKIP: TestBrokenChild/Misuse/UseAfterClose",
	} {
		require.Contains(t, string(output), want)
	}
}

// child runs tests of this binary in another process, for a failing test cannot
// be a part of one that passes.
func child(t *testing.T, store, run string) ([]byte, error) {
	t.Helper()
	command := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+run, "-test.timeout=2m", "-test.v")
	command.Env = append(os.Environ(), brokenStore+"="+store)
	return command.CombinedOutput()
}
