package tests_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/sqlkv"
	"github.com/dynalock/dynalock/lease"
)

func TestAFileThatIsDeletedOrReplacedIsRefused(t *testing.T) {
	t.Parallel()
	for name, strike := range map[string]func(t *testing.T, path string){
		"deleted": func(t *testing.T, path string) { require.NoError(t, os.Remove(path)) },
		"replaced": func(t *testing.T, path string) {
			other := path + ".new"
			store := openFile(t, other)
			require.NoError(t, store.Put(t.Context(), "key", kv.WithString("theirs")))
			require.NoError(t, store.Close())
			require.NoError(t, os.Rename(other, path))
		},
		"moved away": func(t *testing.T, path string) { require.NoError(t, os.Rename(path, path+".old")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "locks.db")
			store := openFile(t, path)
			require.NoError(t, store.Put(t.Context(), "key", kv.WithString("ours")))
			strike(t, path)
			_, err := store.AtomicPut(t.Context(), "other")
			require.ErrorIs(t, err, kv.ErrRefused)
			require.ErrorContains(t, err, path)
			_, err = store.Get(t.Context(), "key")
			require.ErrorIs(t, err, kv.ErrRefused, "also what would only read")
			if name == "moved away" {
				require.NoError(t, os.Rename(path+".old", path))
				require.ErrorIs(t, store.Put(t.Context(), "key"), kv.ErrRefused, "for good: others may have had another")
			}
		})
	}
}

func TestAReadNoticesWithinASecondThatItsFileIsGone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "locks.db")
	store := openFile(t, path)
	require.NoError(t, store.Put(t.Context(), "key"))
	require.NoError(t, os.Remove(path))
	require.Eventually(t, func() bool {
		_, err := store.Get(t.Context(), "key")
		return err != nil
	}, 30*time.Second, 20*time.Millisecond)
}

func TestAHolderLosesItsLeaseWithItsFileAndNobodyHasTwo(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "locks.db")
	client, err := lease.New(openFile(t, path), lease.WithTTL(3*time.Second))
	require.NoError(t, err)
	l, err := client.Acquire(t.Context(), "key")
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	began := time.Now()
	select {
	case <-l.Context().Done():
	case <-time.After(time.Minute):
		require.Fail(t, "the lease goes on without its file")
	}
	require.Less(t, time.Since(began), 30*time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	require.ErrorIs(t, client.Close(ctx), kv.ErrRefused, "its session cannot be deleted any more")
}

func TestAFileThatMayNotBeWrittenIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "locks.db")
	store := openFile(t, path)
	require.NoError(t, store.Put(t.Context(), "key"))
	require.NoError(t, store.Close())
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = sqlkv.Open(t.Context(), db)
	require.ErrorIs(t, err, kv.ErrRefused)
}
