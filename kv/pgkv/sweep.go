package pgkv

import (
	"context"
	"database/sql"
	"errors"
	"sync"
)

const (
	// sweepEvery is how many writes of a Store pass between two sweeps, and
	// sweepRows how many rows one looks at.
	sweepEvery = 64
	sweepRows  = 4 * sweepEvery
)

// sweeper goes round the keys of a namespace. Each write leaves one dead row
// at most and pays for a look at four, so dead rows are never many.
type sweeper struct {
	mu     sync.Mutex
	writes int
	after  []byte // the last key that was looked at
}

// next counts a write. due: the caller sweeps the rows behind after.
func (w *sweeper) next() (after []byte, wanted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	return w.after, w.writes%sweepEvery == 0
}

func (w *sweeper) reached(key []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.after = key
}

// wrote is called after each write that was applied. Now and then it removes rows
// that have been dead for longer than the retention. What becomes of that is
// not the write's concern.
func (s *Store) wrote(ctx context.Context) {
	after, wanted := s.sweeps.next()
	if !wanted {
		return
	}
	if after == nil {
		after = []byte{}
	}
	op := s.begin("sweep", false, 0, 0)
	var last []byte
	err := op.run(ctx, func(ctx context.Context, conn *sql.Conn) (again bool, err error) {
		_, err = op.query(ctx, conn, true, s.statements.sweep, []any{s.namespace, after}, &last)
		if f, ok := errors.AsType[*failure](err); ok {
			f.verdict = refused // once is enough
		}
		return false, err
	})
	if err == nil {
		s.sweeps.reached(last) // nil: from the start
	}
}
