package dynamolocal

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

// The npm package by AWS that carries DynamoDB Local, and the SHA-256 of its archive.
const (
	archive       = "amplify-dynamodb-simulator"
	version       = "2.9.30"
	archiveSHA256 = "3503ffac19f183407909fecdacf4db51ab1fdad1da7b2f177016670b2d80e4b9"
	emulatorDir   = "package/emulator/"
	maxFile       = 256 << 20
)

// fetch returns the directory of the emulator in the user's cache, after
// filling it if need be. Processes may race: the directory appears whole, by a
// rename, and whoever comes second drops its own.
func fetch(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("dynamolocal: no cache directory: %s: %w", advice, err)
	}
	root := filepath.Join(cache, "dynalock")
	dir := filepath.Join(root, archive+"-"+version)
	if present(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", fmt.Errorf("dynamolocal: %w", err)
	}
	temp, err := os.MkdirTemp(root, "fetch-")
	if err != nil {
		return "", fmt.Errorf("dynamolocal: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }() // what is left is only in the way
	tgz, err := pack(ctx, temp)
	if err != nil {
		return "", err
	}
	unpacked := filepath.Join(temp, "emulator")
	if err := unpack(tgz, unpacked); err != nil {
		return "", fmt.Errorf("dynamolocal: unpacking %s: %w", archive, err)
	}
	if err := os.Rename(unpacked, dir); err != nil && !present(dir) {
		return "", fmt.Errorf("dynamolocal: %w", err)
	}
	return dir, nil
}

func present(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "DynamoDBLocal.jar"))
	return err == nil
}

// pack fetches the archive into dir and verifies it.
func pack(ctx context.Context, dir string) (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", fmt.Errorf("dynamolocal: fetching DynamoDB Local needs npm: %s: %w", advice, err)
	}
	cmd := exec.CommandContext(ctx, npm, "pack", "--silent", archive+"@"+version)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("dynamolocal: npm pack %s@%s: %w: %s", archive, version, err, out)
	}
	tgz := filepath.Join(dir, archive+"-"+version+".tgz")
	f, err := os.Open(tgz)
	if err != nil {
		return "", fmt.Errorf("dynamolocal: npm pack: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", fmt.Errorf("dynamolocal: %w", err)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != archiveSHA256 {
		return "", fmt.Errorf("dynamolocal: %s has SHA-256 %s, want %s", filepath.Base(tgz), sum, archiveSHA256)
	}
	return tgz, nil
}

// unpack writes the regular files of the archive's emulator directory to dir.
func unpack(tgz, dir string) error {
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
		name, ok := strings.CutPrefix(header.Name, emulatorDir)
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
