package stores_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
)

func TestAnSQLiteFileIsTheOneThatWasNamed(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"plain.db", "with space", "a?b#c%20d&e=f.db", "ü:x"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), name)
			store, closeStore, err := stores.Open(t.Context(), "sqlite:"+path, false)
			require.NoError(t, err)
			require.NoError(t, store.Put(t.Context(), "key", kv.WithString("value")))

			listed, err := stores.Files("sqlite:" + path)
			require.NoError(t, err)
			require.Equal(t, path, listed[0])
			there, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			for _, file := range there {
				require.Contains(t, listed, filepath.Join(filepath.Dir(path), file.Name()))
			}
			require.NoError(t, closeStore())

			store, closeStore, err = stores.Open(t.Context(), "sqlite:"+path, false)
			require.NoError(t, err)
			pair, err := store.Get(t.Context(), "key")
			require.NoError(t, err)
			require.Equal(t, "value", pair.String())
			require.NoError(t, closeStore())
		})
	}
}

func TestOnlySQLiteHasFiles(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"memory", "sqlite", "dynamodb:x"} {
		listed, err := stores.Files(spec)
		require.NoError(t, err)
		require.Empty(t, listed, spec)
	}
}

func TestUnknownStoresAreRefused(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{"", "memory:x", "sqlite", "sqlite:", "dynamodb:", "redis:x", "postgres", "postgres:",
		"postgres:x"} {
		_, _, err := stores.Open(t.Context(), spec, false)
		require.ErrorContains(t, err, "unknown store", spec)
	}
}
