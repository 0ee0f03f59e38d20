package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dynalock/dynalock/kv"
)

// setName names the entries of a folder in the store: by name, or if that is ""
// by the folder's path, so that runs on other folders do not meet. Of a long
// name the beginning counts.
func setName(name, dir string) string {
	escape := func(s string) string {
		s = url.PathEscape(s)
		return s[:min(len(s), 32)]
	}
	if name != "" {
		return "entries-" + escape(name)
	}
	sum := sha256.Sum256([]byte(dir))
	return "folder-" + escape(filepath.Base(dir)) + "-" + hex.EncodeToString(sum[:4])
}

// longestName leaves room in a key for what is put before an entry's name.
const longestName = kv.MaxKeySize - 64

// listEntries returns the regular files under dir, as slash-separated paths
// relative to it, in order. It skips folders below it whose names begin
// with a dot, and the files in skip, which are absolute paths. An error is one line that says what to do.
func listEntries(dir string, skip []string) ([]string, error) {
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("there is no folder %s: give one with -input", dir)
	}
	root, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	var entries []string
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case !d.Type().IsRegular() || slices.Contains(skip, path):
			return nil
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if err := kv.CheckKey(name); err != nil || len(name) > longestName {
			return fmt.Errorf("the name of %q cannot be a key (UTF-8, at most %d bytes): rename it", path, longestName)
		}
		entries = append(entries, filepath.ToSlash(name))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("input %s: %w", dir, err)
	}
	if len(entries) == 0 {
		return nil, fmt.Errorf("there are no files in %s: give another folder with -input", dir)
	}
	return entries, nil
}

// digest returns the SHA-256 of an entry's content, in hex. It gives up when ctx ends.
func digest(ctx context.Context, dir, entry string) (string, error) {
	file, err := os.Open(filepath.Join(dir, filepath.FromSlash(entry)))
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }() // only read from
	hash := sha256.New()
	if _, err := io.Copy(hash, contextReader{ctx, file}); err != nil {
		return "", fmt.Errorf("reading %s: %w", entry, err)
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// contextReader fails with the cause of ctx once that has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
