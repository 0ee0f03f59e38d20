package sqlkv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// lookEvery is how long a read trusts the last look at the file. A write looks
// before it commits.
const lookEvery = time.Second

// file is the database's file as it was at Open. Once another stands in its
// place, or none, the connections still have the old one, and other processes
// have another: each would give out the same locks.
type file struct {
	path string
	info os.FileInfo
	// deleted: it was found deleted or replaced. That is for good.
	deleted atomic.Bool
	// looked is when it was last found in its place, on the monotonic clock.
	looked atomic.Int64
}

// openFile finds out which file conn has open.
func openFile(ctx context.Context, conn *conn) (*file, error) {
	var seq int
	var name, path string
	row := conn.QueryRowContext(ctx, "SELECT seq, name, file FROM pragma_database_list WHERE name = 'main'")
	if err := row.Scan(&seq, &name, &path); err != nil {
		return nil, fmt.Errorf("sqlkv: which file is it: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("sqlkv: the database's file: %w", err)
	}
	return &file{path: path, info: info}, nil
}

// check returns an error if the file is not in its place any more.
func (f *file) check() error {
	if !f.deleted.Load() {
		info, err := os.Stat(f.path)
		switch {
		case err == nil && os.SameFile(info, f.info):
			f.looked.Store(int64(clock.System.Now().Mono))
			return nil
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return fmt.Errorf("sqlkv: the database's file cannot be looked at: %w: %w", kv.ErrUnavailable, err)
		}
		f.deleted.Store(true)
	}
	return fmt.Errorf("sqlkv: the file %s was deleted or replaced while it was in use, "+
		"so other processes have another one: stop them all, and start them again: %w", f.path, kv.ErrRefused)
}

// recheck is check, unless that was less than a second ago.
func (f *file) recheck() error {
	now := int64(clock.System.Now().Mono)
	if !f.deleted.Load() && now-f.looked.Load() < int64(lookEvery) {
		return nil
	}
	return f.check()
}
