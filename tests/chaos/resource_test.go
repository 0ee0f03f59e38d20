//go:build unix

package chaos_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
)

// machineTime is a clock that never steps and that all processes of the machine
// share; off Linux it is the wall clock.
func machineTime() time.Duration {
	now := clock.System.Now()
	if now.Boot != 0 {
		return now.Boot
	}
	return time.Duration(now.Wall.UnixNano())
}

// write is one that the resource was asked for.
type write struct {
	At    time.Duration
	PID   int
	Token uint64
	// Highest is the greatest token that the resource had accepted after it.
	Highest uint64
}

// accepted reports whether the resource let it through.
func (w write) accepted() bool { return w.Token == w.Highest }

// resource is what the leases guard: in its directory, a file for each key with
// every write that was asked for. It refuses tokens smaller than one it has
// accepted.
type resource string

// recordSize is that of a line: the last one is found from the end.
const recordSize = 20 + 1 + 10 + 1 + 20 + 1 + 20 + 1

func (r resource) open(key string) (*os.File, error) {
	return os.OpenFile(filepath.Join(string(r), key), os.O_RDWR|os.O_CREATE, 0o600)
}

// write asks for a write under token, and reports whether it was accepted.
func (r resource) write(key string, token uint64) (bool, error) {
	file, err := r.open(key)
	if err != nil {
		return false, err
	}
	defer file.Close() // which unlocks it, as does the death of the process
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX); err != nil {
		return false, err
	}
	last, size, err := lastWrite(file)
	if err != nil {
		return false, err
	}
	w := write{At: machineTime(), PID: os.Getpid(), Token: token, Highest: max(token, last.Highest)}
	_, err = file.WriteAt(fmt.Appendf(nil, "%20d %10d %20d %20d\n", w.At, w.PID, w.Token, w.Highest), size)
	return w.accepted(), err
}

// last returns the last write that was asked for, zero if there was none.
func (r resource) last(key string) (write, error) {
	file, err := r.open(key)
	if err != nil {
		return write{}, err
	}
	defer file.Close()
	w, _, err := lastWrite(file)
	return w, err
}

// lastWrite returns the last write in file, and the size of the records.
func lastWrite(file *os.File) (w write, size int64, err error) {
	info, err := file.Stat()
	if err != nil {
		return w, 0, err
	}
	size = info.Size() / recordSize * recordSize // a writer may have been killed in the middle of a record
	if size == 0 {
		return w, 0, nil
	}
	_, err = fmt.Fscan(io.NewSectionReader(file, size-recordSize, recordSize), &w.At, &w.PID, &w.Token, &w.Highest)
	return w, size, err
}

// writes returns everything that was asked for, in order.
func (r resource) writes(key string) (all []write, err error) {
	text, err := os.ReadFile(filepath.Join(string(r), key))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for line := range strings.Lines(string(text)) {
		if len(line) < recordSize {
			break
		}
		var w write
		if _, err := fmt.Sscan(line, &w.At, &w.PID, &w.Token, &w.Highest); err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, err
}
