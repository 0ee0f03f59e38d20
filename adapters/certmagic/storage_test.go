package certmagicstorage_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/adapters/certmagic"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func newStorage(t *testing.T, store kv.Store, options ...certmagicstorage.Option) *certmagicstorage.Storage {
	t.Helper()
	client, err := lease.New(store)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = client.Close(ctx) // tests may leave locks behind
	})
	s, err := certmagicstorage.New(store, client, options...)
	require.NoError(t, err)
	return s
}

// TestWhatIsStoredIsLoaded, the next one and TestALockIsHadOnce are the scenarios
// of certmagic's own test of its storage.
func TestWhatIsStoredIsLoaded(t *testing.T) {
	t.Parallel()
	s := newStorage(t, memkv.New())
	require.NoError(t, s.Store(t.Context(), "foo", []byte("bar")))
	value, err := s.Load(t.Context(), "foo")
	require.NoError(t, err)
	require.Equal(t, "bar", string(value))
	require.NoError(t, s.Store(t.Context(), "foo", nil))
	value, err = s.Load(t.Context(), "foo")
	require.NoError(t, err)
	require.Empty(t, value)
	for _, missing := range []string{"fo", "foo/bar"} {
		_, err = s.Load(t.Context(), missing)
		require.ErrorIs(t, err, fs.ErrNotExist)
	}
}

func TestALoadBesideStoresIsOneOfThemWhole(t *testing.T) {
	t.Parallel()
	store := memkv.New()
	a, b := bytes.Repeat([]byte("a"), 300<<10), bytes.Repeat([]byte("b"), 300<<10)
	require.NoError(t, newStorage(t, store).Store(t.Context(), "foo", a))
	var writers sync.WaitGroup
	for range 8 {
		s := newStorage(t, store)
		writers.Go(func() {
			if err := s.Store(t.Context(), "foo", b); err != nil {
				t.Error(err)
			}
		})
	}
	value, err := newStorage(t, store).Load(t.Context(), "foo")
	require.NoError(t, err)
	require.True(t, bytes.Equal(value, a) || bytes.Equal(value, b))
	writers.Wait()
	value, err = newStorage(t, store).Load(t.Context(), "foo")
	require.NoError(t, err)
	require.True(t, bytes.Equal(value, b))
}

// uncertain makes the first writes of a store's keys lose their answers.
func uncertain(store kv.Store, lost int, applied bool) kv.Store {
	var mu sync.Mutex
	return kv.Instrument(store, func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		mu.Lock()
		defer mu.Unlock()
		if !strings.HasPrefix(call.Key, "certmagic/") || !strings.HasPrefix(call.Op, "Atomic") || lost == 0 {
			return next(ctx)
		}
		lost--
		if applied {
			if err := next(ctx); err != nil {
				return err
			}
		}
		return &kv.UncertainError{Key: call.Key, Err: errors.New("answer lost")}
	})
}

func TestLostAnswersAreAskedForAgain(t *testing.T) {
	t.Parallel()
	for _, applied := range []bool{false, true} {
		store := memkv.New()
		s := newStorage(t, uncertain(store, 2, applied))
		require.NoError(t, s.Store(t.Context(), "foo", []byte("bar")))
		value, err := s.Load(t.Context(), "foo")
		require.NoError(t, err)
		require.Equal(t, "bar", string(value))
		require.NoError(t, newStorage(t, uncertain(store, 2, applied)).Delete(t.Context(), "foo"))
		require.False(t, s.Exists(t.Context(), "foo"))

		require.ErrorIs(t, newStorage(t, uncertain(store, 9, applied)).Store(t.Context(), "foo", nil), kv.ErrUncertain)
		require.NoError(t, s.Store(t.Context(), "foo", nil))
		require.ErrorIs(t, newStorage(t, uncertain(store, 9, false)).Delete(t.Context(), "foo"), kv.ErrUncertain)
	}
}

func TestDirectories(t *testing.T) {
	t.Parallel()
	s := newStorage(t, memkv.New())
	for _, key := range []string{"a/b/c", "a/b/d", "a/b-x/e", "a/b", "ab/f", "g"} {
		require.NoError(t, s.Store(t.Context(), key, []byte(key)))
	}
	for want, list := range map[string][]string{
		"a/b a/b-x":                      lists(t, s, "a", false),
		"a/b a/b-x/e a/b/c a/b/d":        lists(t, s, "a", true),
		"a/b/c a/b/d":                    lists(t, s, "a/b", false),
		"a ab g":                         lists(t, s, "", false),
		"a/b a/b-x/e a/b/c a/b/d ab/f g": lists(t, s, "", true),
		"ab/f":                           lists(t, s, "ab", true),
	} {
		require.Equal(t, want, strings.Join(list, " "))
	}
	for _, missing := range []string{"b", "g/h", "a/"} {
		_, err := s.List(t.Context(), missing, true)
		require.Error(t, err, missing)
		require.False(t, s.Exists(t.Context(), missing), missing)
	}
	info, err := s.Stat(t.Context(), "ab")
	require.NoError(t, err)
	require.Equal(t, certmagic.KeyInfo{Key: "ab"}, info)
	_, err = s.Stat(t.Context(), "b")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = s.List(t.Context(), "b", false)
	require.ErrorIs(t, err, fs.ErrNotExist)

	require.NoError(t, s.Delete(t.Context(), "a/b"))
	require.Equal(t, []string{"a/b-x/e", "ab/f", "g"}, lists(t, s, "", true))
	require.NoError(t, s.Delete(t.Context(), "a/b"), "again")
	require.NoError(t, s.Delete(t.Context(), "a"))
	require.Equal(t, []string{"ab/f", "g"}, lists(t, s, "", true))
}

func lists(t *testing.T, s *certmagicstorage.Storage, path string, recursive bool) []string {
	t.Helper()
	keys, err := s.List(t.Context(), path, recursive)
	require.NoError(t, err)
	return keys
}

func TestStatSaysWhenAKeyWasWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStorage(t, memkv.New())
		require.NoError(t, s.Store(t.Context(), "foo", []byte("1")))
		time.Sleep(time.Hour)
		require.NoError(t, s.Store(t.Context(), "foo", []byte("22")))
		written := time.Now()
		time.Sleep(time.Hour)
		info, err := s.Stat(t.Context(), "foo")
		require.NoError(t, err)
		require.Equal(t, certmagic.KeyInfo{Key: "foo", Size: 2, Modified: info.Modified, IsTerminal: true}, info)
		require.True(t, written.Equal(info.Modified))
	})
}

func TestPrefixesKeepStoragesApart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		a, b := newStorage(t, store), newStorage(t, store, certmagicstorage.WithPrefix("blue/"))
		require.NoError(t, a.Store(t.Context(), "foo", nil))
		require.False(t, b.Exists(t.Context(), "foo"))
		require.NoError(t, a.Lock(t.Context(), "foo"))
		require.NoError(t, b.Lock(t.Context(), "foo"))
		for key, err := range kv.All(t.Context(), store, "certmagic/") {
			require.NoError(t, err)
			require.Equal(t, "certmagic/foo", key.Key)
		}
	})
}

func TestItRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	store := memkv.New()
	client, err := lease.New(store)
	require.NoError(t, err)
	for _, err := range []error{
		second(certmagicstorage.New(nil, client)),
		second(certmagicstorage.New(store, nil)),
		second(certmagicstorage.New(store, client, nil)),
		second(certmagicstorage.New(store, client, certmagicstorage.WithPrefix(""))),
		second(certmagicstorage.New(store, client, certmagicstorage.WithPrefix("blue"))),
		second(certmagicstorage.New(store, client, certmagicstorage.WithPrefix(strings.Repeat("x", 200)+"/"))),
	} {
		require.ErrorIs(t, err, lease.ErrInvalid)
	}
	s := newStorage(t, store)
	for _, key := range []string{"", "/", "a/", "/a"} {
		require.ErrorIs(t, s.Store(t.Context(), key, nil), kv.ErrInvalidKey)
		require.ErrorIs(t, s.Delete(t.Context(), key), kv.ErrInvalidKey)
		require.ErrorIs(t, second(s.Load(t.Context(), key)), kv.ErrInvalidKey)
		require.ErrorIs(t, second(s.Stat(t.Context(), key)), kv.ErrInvalidKey)
		if key != "" {
			require.ErrorIs(t, second(s.List(t.Context(), key, true)), kv.ErrInvalidKey)
		}
	}
	require.ErrorIs(t, s.Store(t.Context(), "big", make([]byte, kv.MaxPairSize)), kv.ErrTooLarge)
	require.Empty(t, lists(t, s, "", true), "nothing was written")
}

func second[T any](_ T, err error) error { return err }
