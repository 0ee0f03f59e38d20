package npmpack_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/npmpack"
)

// fakeNPM makes an npm that packs these files, and returns the checksum.
func fakeNPM(t *testing.T, files map[string]string) (sum string) {
	t.Helper()
	var tgz bytes.Buffer
	zipped := gzip.NewWriter(&tgz)
	archive := tar.NewWriter(zipped)
	for name, text := range files {
		require.NoError(t,
			archive.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(text)), Mode: 0o600}))
		_, err := archive.Write([]byte(text))
		require.NoError(t, err)
	}
	require.NoError(t, archive.Close())
	require.NoError(t, zipped.Close())
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a.tgz"), tgz.Bytes(), 0o600))
	script := "#!/bin/sh\ncp " + dir + "/a.tgz thing-1.0.0.tgz\necho ran >>" + dir + "/log\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "npm"), []byte(script), 0o700)) //nolint:gosec // it is to be run
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	hash := sha256.Sum256(tgz.Bytes())
	return hex.EncodeToString(hash[:])
}

func TestAnArchiveIsFetchedOnceAndItsFolderUnpacked(t *testing.T) {
	sum := fakeNPM(t, map[string]string{"package/wanted/sub/a.js": "text", "package/other.js": "other"})
	a := npmpack.Archive{Name: "thing", Version: "1.0.0", SHA256: sum, Folder: "package/wanted/", File: "sub/a.js"}
	dir, err := a.Fetch(t.Context())
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(dir, "sub", "a.js"))
	require.NoError(t, err)
	require.Equal(t, "text", string(text))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "what is not in the folder is left out")
	t.Setenv("PATH", t.TempDir()) // there is no npm any more
	again, err := a.Fetch(t.Context())
	require.NoError(t, err)
	require.Equal(t, dir, again)
}

func TestAnArchiveThatIsNotTheOneThatWasCheckedIsRefused(t *testing.T) {
	sum := fakeNPM(t, map[string]string{"package/a.js": "text"})
	a := npmpack.Archive{Name: "thing", Version: "1.0.0", SHA256: "00" + sum[2:], Folder: "package/", File: "a.js"}
	_, err := a.Fetch(t.Context())
	require.ErrorContains(t, err, "has SHA-256 "+sum)
	_, err = a.Fetch(t.Context())
	require.Error(t, err, "nothing is kept")
}

func TestAnArchiveDoesNotWriteOutsideItsFolder(t *testing.T) {
	sum := fakeNPM(t, map[string]string{"package/../../escaped": "text"})
	a := npmpack.Archive{Name: "thing", Version: "1.0.0", SHA256: sum, Folder: "package/", File: "a.js"}
	_, err := a.Fetch(t.Context())
	require.ErrorContains(t, err, "escaped")
}
