// Package npmpack fetches packages of npm for tests, with their checksums verified,
// once for all checkouts of this machine's user.
package npmpack

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxFile bounds a file of an archive, in bytes.
const maxFile = 256 << 20

// Archive is a version of a package that npm has, of which a folder is wanted.
type Archive struct {
	Name, Version string
	// SHA256 is that of the archive, in hex.
	SHA256 string
	// Folder is the folder in the archive that is wanted, with a slash at its end.
	Folder string
	// File is a file in that folder, by which a cache is known to have it.
	File string
}

// Fetch returns the folder in the user's cache directory, after filling it if need
// be. Processes may race: the folder appears whole, by a rename, and whoever comes
// second drops its own.
func (a Archive) Fetch(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("npmpack: no cache directory: %w", err)
	}
	root := filepath.Join(cache, "dynalock")
	dir := filepath.Join(root, a.Name+"-"+a.Version)
	if a.isIn(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("npmpack: %w", err)
	}
	temp, err := os.MkdirTemp(root, "fetch-")
	if err != nil {
		return "", fmt.Errorf("npmpack: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }() // what is left is only in the way
	tgz, err := a.pack(ctx, temp)
	if err != nil {
		return "", err
	}
	unpacked := filepath.Join(temp, "unpacked")
	if err := a.unpack(tgz, unpacked); err != nil {
		return "", fmt.Errorf("npmpack: unpacking %s: %w", a.Name, err)
	}
	if err := os.Rename(unpacked, dir); err != nil && !a.isIn(dir) {
		return "", fmt.Errorf("npmpack: %w", err)
	}
	return dir, nil
}

func (a Archive) isIn(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, filepath.FromSlash(a.File)))
	return err == nil
}

// pack fetches the archive into dir and verifies it.
func (a Archive) pack(ctx context.Context, dir string) (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("npmpack: fetching %s needs npm: %w", a.Name, err)
	}
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", a.Name+"@"+a.Version)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npmpack: npm pack %s@%s: %w: %s", a.Name, a.Version, err, out)
	}
	tgz := filepath.Join(dir, a.Name+"-"+a.Version+".tgz")
	f, err := os.Open(tgz)
	if err != nil {
		return "", fmt.Errorf("npmpack: npm pack: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", fmt.Errorf("npmpack: %w", err)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != a.SHA256 {
		return "", fmt.Errorf("npmpack: %s has SHA-256 %s, want %s", filepath.Base(tgz), sum, a.SHA256)
	}
	return tgz, nil
}

// unpack writes the regular files of the archive's folder to dir.
func (a Archive) unpack(tgz, dir string) error {
	f, err := os.Open(tgz)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // it was only read
	zipped, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	files := tar.NewReader(zipped)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, ok := strings.CutPrefix(header.Name, a.Folder)
		if !ok || header.Typeflag != tar.TypeReg {
			continue
		}
		if !filepath.IsLocal(name) || header.Size > maxFile {
			return fmt.Errorf("archive has a file %q of %d bytes", header.Name, header.Size)
		}
		if err := writeFile(filepath.Join(dir, name), files); err != nil {
			return err
		}
	}
}

func writeFile(path string, from io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
