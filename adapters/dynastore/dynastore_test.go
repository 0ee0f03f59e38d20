package dynastore_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/adapters/dynastore"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

func (r rig) keys(t *testing.T, prefix string) (keys []string) {
	t.Helper()
	for row, err := range r.table.All(t.Context(), prefix) {
		require.NoError(t, err)
		keys = append(keys, row.Key)
	}
	return keys
}

func TestRowsAreReadAndListedInPlace(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r rig) {
		row, err := r.table.Get(t.Context(), "app/b")
		require.NoError(t, err)
		require.Equal(t, &dynastore.Row{
			Key: "app/b", Version: 2, Payload: "dHdv", Fields: kv.Fields{"team": "blue"},
		}, row)
		value, err := row.Value(dynastore.Base64)
		require.NoError(t, err)
		require.Equal(t, "two", string(value))
		value, err = row.Value(dynastore.Text)
		require.NoError(t, err)
		require.Equal(t, "dHdv", string(value))

		row, err = r.table.Get(t.Context(), "app/live")
		require.NoError(t, err)
		require.InDelta(t, time.Hour, time.Until(row.Expires), float64(time.Minute))
		for _, gone := range []string{"app/over", "app/none"} {
			_, err = r.table.Get(t.Context(), gone)
			require.ErrorIs(t, err, kv.ErrKeyNotFound)
		}
		require.Equal(t, []string{"app/a", "app/b", "app/live"}, r.keys(t, "app/"))
		require.Equal(t, []string{"app/a", "app/b", "app/live", "apple"}, r.keys(t, ""))
		require.Empty(t, r.keys(t, "b"))
		for range r.table.All(t.Context(), "") {
			break
		}
	})
}

func TestADynamokvStoreTakesNoRowForItsOwn(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r rig) {
		_, err := r.store.Get(t.Context(), "app/b")
		require.ErrorIs(t, err, kv.ErrFormat)
		_, err = r.store.List(t.Context(), "")
		require.ErrorIs(t, err, kv.ErrFormat)
		_, err = r.store.AtomicPut(t.Context(), "app/b")
		require.ErrorIs(t, err, kv.ErrFormat)
		pairs, err := r.fresh.List(t.Context(), "")
		require.NoError(t, err, "another partition of the same table")
		require.Empty(t, pairs)
		require.NoError(t, r.store.Put(t.Context(), "app/b", kv.WithString("new")), "a blind write asks nothing")
		_, err = r.table.Get(t.Context(), "app/b")
		require.ErrorIs(t, err, dynastore.ErrTaken)
	})
}

func TestRowsAreTakenOver(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r rig) {
		for row, err := range r.table.All(t.Context(), "") {
			require.NoError(t, err)
			require.NoError(t, r.table.TakeOver(t.Context(), row, dynastore.Base64))
		}
		require.Empty(t, r.keys(t, ""))
		require.NoError(t, r.store.Delete(t.Context(), "app/over"), "no listing of the store takes it")
		pairs, err := r.store.List(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, pairs, 4)
		require.Equal(t, bytesValue, pairs[0].String())
		require.Equal(t, "two", pairs[1].String())
		require.Equal(t, kv.Fields{"team": "blue"}, pairs[1].Fields)
		require.InDelta(t, time.Hour, time.Until(pairs[2].Expires), float64(time.Minute))
		require.Empty(t, pairs[3].String())
		for _, p := range pairs {
			require.InDelta(t, time.Now().UnixMicro(), p.Version, float64(time.Minute.Microseconds()))
		}

		_, err = r.store.AtomicPut(t.Context(), "app/b", kv.WithString("three"), kv.WithPrevious(pairs[1]))
		require.NoError(t, err, "the pair is like any other")
		require.NoError(t, r.store.AtomicDelete(t.Context(), "app/a", pairs[0]))
		_, err = r.store.AtomicPut(t.Context(), "app/a")
		require.NoError(t, err)
	})
}

func TestATakeOverOfWhatHasChangedIsRefused(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r rig) {
		row, err := r.table.Get(t.Context(), "app/b")
		require.NoError(t, err)
		require.NoError(t, r.old.put("app/b", "NA==", time.Time{}, nil, 0))
		require.ErrorIs(t, r.table.TakeOver(t.Context(), row, dynastore.Base64), kv.ErrKeyModified)
		row, err = r.table.Get(t.Context(), "app/b")
		require.NoError(t, err, "it was left as it was")
		require.NoError(t, r.table.TakeOver(t.Context(), row, dynastore.Base64))
		require.ErrorIs(t, r.table.TakeOver(t.Context(), row, dynastore.Base64), kv.ErrKeyModified, "twice")

		live, err := r.table.Get(t.Context(), "app/live")
		require.NoError(t, err)
		require.NoError(t, r.old.put("app/live", "NA==", time.Now().Add(2*time.Hour), nil, 0))
		live.Version++ // a row that was deleted and made anew may have the same version
		require.ErrorIs(t, r.table.TakeOver(t.Context(), live, dynastore.Base64), kv.ErrKeyModified)
	})
}

// TestWhatEachSideSeesWhileBothWrite holds docs/migration.md to its table.
func TestWhatEachSideSeesWhileBothWrite(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r rig) {
		for _, key := range []string{"app/a", "app/b", "app/live", "apple"} {
			row, err := r.table.Get(t.Context(), key)
			require.NoError(t, err)
			require.NoError(t, r.table.TakeOver(t.Context(), row, dynastore.Text))
		}
		payload, found := r.old.get(t, "app/b")
		require.True(t, found)
		require.Equal(t, "dHdv", payload, "the old program reads text")
		require.Error(t, r.old.put("app/b", "MTA=", time.Time{}, nil, 2), "and does not write on what it read before")

		pair, err := r.store.Get(t.Context(), "app/b")
		require.NoError(t, err)
		require.NoError(t, r.old.put("app/b", "MTA=", time.Time{}, nil, 0))
		_, err = r.store.AtomicPut(t.Context(), "app/b", kv.WithPrevious(pair))
		require.ErrorIs(t, err, kv.ErrKeyModified, "a blind write of the old program is noticed by its version")

		pair, err = r.store.Get(t.Context(), "app/a")
		require.NoError(t, err)
		require.NoError(t, r.store.AtomicDelete(t.Context(), "app/a", pair))
		payload, found = r.old.get(t, "app/a")
		require.True(t, found, "a deleted pair is an empty one for the old program")
		require.Empty(t, payload)

		require.NoError(t, r.store.Put(t.Context(), "apple", kv.WithString("x"), kv.WithTTL(time.Millisecond)))
		require.Eventually(t, func() bool {
			exists, err := r.store.Exists(t.Context(), "apple")
			return err == nil && !exists
		}, time.Minute, time.Millisecond)
		_, found = r.old.get(t, "apple")
		require.True(t, found, "an expired pair is a live one for the old program")
	})
}

func TestRowsAreImported(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r rig) {
		for _, store := range []kv.Store{r.fresh, memkv.New()} {
			_, err := store.AtomicPut(t.Context(), "app/b", kv.WithString("newer"))
			require.NoError(t, err)
			for _, want := range []dynastore.Imported{{Copied: 3, Kept: 1}, {Kept: 4}} {
				done, err := r.table.Import(t.Context(), store, dynastore.Base64)
				require.NoError(t, err)
				require.Equal(t, want, done)
			}
			pairs, err := store.List(t.Context(), "")
			require.NoError(t, err)
			require.Len(t, pairs, 4)
			require.Equal(t, bytesValue, pairs[0].String())
			require.Equal(t, "newer", pairs[1].String())
			require.InDelta(t, time.Hour, time.Until(pairs[2].Expires), float64(time.Minute))
		}
		require.Len(t, r.keys(t, ""), 4, "the rows stay")
		store := memkv.New()
		_, err := r.table.Import(t.Context(), store, dynastore.Text)
		require.NoError(t, err)
		pair, err := store.Get(t.Context(), "app/b")
		require.NoError(t, err)
		require.Equal(t, "dHdv", pair.String())
		require.Equal(t, kv.Fields{"team": "blue"}, pair.Fields)
	})
}

func TestRowsOfNeitherAreNamed(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, r rig) {
		r.old.raw(t, "bad/1", item{"payload": s("x")})
		r.old.raw(t, "bad/2", item{"version": s("1")})
		r.old.raw(t, "bad/3", item{"version": n(-1)})
		r.old.raw(t, "bad/4", item{"version": n(1), "payload": n(1)})
		r.old.raw(t, "bad/5", item{"version": n(1), "payload": s("x"), "size": n(1)})
		r.old.raw(t, "bad/6", item{"version": n(1), "payload": s("x"), "expires": s("soon")})
		r.old.raw(t, "bad/7", item{"version": n(1), "payload": s("no base64")})
		problems := 0
		for row, err := range r.table.All(t.Context(), "bad/") {
			if err == nil {
				require.Equal(t, "bad/7", row.Key)
				continue
			}
			require.Nil(t, row)
			require.ErrorIs(t, err, kv.ErrFormat)
			problems++
		}
		require.Equal(t, 6, problems)
		_, err := r.table.Get(t.Context(), "bad/5")
		require.ErrorIs(t, err, kv.ErrFormat)
		row, err := r.table.Get(t.Context(), "bad/7")
		require.NoError(t, err)
		require.ErrorIs(t, r.table.TakeOver(t.Context(), row, dynastore.Base64), kv.ErrFormat)
		_, err = r.table.Import(t.Context(), memkv.New(), dynastore.Base64)
		require.ErrorIs(t, err, kv.ErrFormat)
	})
}

func TestATakeOverKnowsItsOwnWriteAgain(t *testing.T) {
	t.Parallel()
	server := dynamomem.New()
	server.CreateTable("app", "id", "name")
	client := server.Client()
	r := newRig(t, client, "app")
	row, err := r.table.Get(t.Context(), "app/b")
	require.NoError(t, err)
	client.Inject(func(_ context.Context, _ dynamomem.Call, apply dynamomem.Apply) (any, error) {
		_, _ = apply() // the answer is lost, and the SDK asks again
		return apply()
	})
	require.NoError(t, r.table.TakeOver(t.Context(), row, dynastore.Base64))
}

func TestErrorsOfTheTableComeThrough(t *testing.T) {
	t.Parallel()
	server := dynamomem.New()
	server.CreateTable("app", "id", "name")
	client := server.Client()
	r := newRig(t, client, "app")
	row, err := r.table.Get(t.Context(), "app/b")
	require.NoError(t, err)
	errDown := errors.New("down")
	client.Inject(dynamomem.Lost(errDown))
	_, err = r.table.Get(t.Context(), "app/b")
	require.ErrorIs(t, err, errDown)
	require.ErrorIs(t, r.table.TakeOver(t.Context(), row, dynastore.Base64), errDown)
	_, err = r.table.Import(t.Context(), memkv.New(), dynastore.Base64)
	require.ErrorIs(t, err, errDown)
}

func TestItRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	client := dynamomem.New().Client()
	for _, err := range []error{
		second(dynastore.Open(nil, "app", "settings")),
		second(dynastore.Open(client, "", "settings")),
		second(dynastore.Open(client, "app", "")),
		second((&dynastore.Row{}).Value(0)),
		second((&dynastore.Row{}).Value(3)),
	} {
		require.ErrorIs(t, err, kv.ErrInvalidOption)
	}
	table, err := dynastore.Open(client, "app", "settings")
	require.NoError(t, err)
	_, err = table.Get(t.Context(), "")
	require.ErrorIs(t, err, kv.ErrInvalidKey)
}

func second[T any](_ T, err error) error { return err }
