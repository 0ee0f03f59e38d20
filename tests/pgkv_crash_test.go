package tests_test

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/postgreslocal"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/pgkv"
)

// counter counts one key up for ever, by compare and swap, and knows what was acknowledged.
type counter struct {
	store *pgkv.Store
	key   string
	acked atomic.Uint64 // the greatest acknowledged version
	acks  atomic.Int64
	last  atomic.Value // the text of the last error
}

func (c *counter) run(ctx context.Context) error {
	var current *kv.KVPair
	for ctx.Err() == nil {
		next, err := c.store.AtomicPut(ctx, c.key, kv.WithPrevious(current), kv.WithString(fmt.Sprint(c.acks.Load())))
		if err == nil {
			if next.Version <= c.acked.Load() {
				return fmt.Errorf("%s: version %d after %d", c.key, next.Version, c.acked.Load())
			}
			c.acked.Store(next.Version)
			c.acks.Add(1)
			current = next
			continue
		}
		read, readErr := c.store.Get(ctx, c.key)
		c.last.Store(fmt.Sprintf("write: %v; read: %v", err, readErr))
		switch {
		case errors.Is(readErr, pgkv.ErrTableNotFound):
			return readErr
		case errors.Is(readErr, kv.ErrKeyNotFound) && c.acks.Load() > 0:
			return fmt.Errorf("%s is gone, after %d acknowledged writes", c.key, c.acks.Load())
		case readErr == nil && read.Version < c.acked.Load():
			return fmt.Errorf("%s is at version %d, and %d was acknowledged (after %w)",
				c.key, read.Version, c.acked.Load(), err)
		case readErr == nil:
			current = read
		}
	}
	return nil
}

// The server is killed in the middle of writes, again and again: no
// acknowledged write is lost, and versions only grow.
func TestPostgresIsKilledInTheMiddleOfWrites(t *testing.T) {
	t.Parallel()
	const writers = 4
	rounds := 6
	if long() {
		rounds = 20
	}
	server := postgreslocal.Own(t)
	dsn := server.DSN(postgreslocal.Superuser, "", pgTimeout)
	require.NoError(t, pgkv.EnsureTable(t.Context(), openPostgres(t, dsn)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	counters := make([]*counter, writers)
	errs := make(chan error, writers)
	var running sync.WaitGroup
	for i := range counters {
		counters[i] = &counter{store: openPg(t, dsn, "killed"), key: fmt.Sprint(i)}
		running.Go(func() { errs <- counters[i].run(ctx) })
	}
	acks := func() (n int64) {
		for _, c := range counters {
			n += c.acks.Load()
		}
		return n
	}
	// A writer that waits between two attempts may miss a whole round.
	missed := func(since []int64) bool {
		for i, c := range counters {
			if c.acks.Load() == since[i] {
				return true
			}
		}
		return false
	}
	for round := range rounds {
		before, since := acks(), make([]int64, writers)
		for i, c := range counters {
			since[i] = c.acks.Load()
		}
		for limit := time.Now().Add(2 * time.Minute); (acks() < before+int64(20+7*round) || missed(since)) &&
			len(errs) == 0; {
			time.Sleep(time.Millisecond)
			if time.Now().After(limit) {
				for _, c := range counters {
					t.Logf("%s: %v", c.key, c.last.Load())
				}
				require.Fail(t, "no progress", "%d writes in round %d; the server says:\n%s", acks()-before, round, server.Log())
			}
		}
		require.NoError(t, server.Kill())
		require.NoError(t, server.Start(t.Context()))
	}
	cancel()
	running.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	for _, c := range counters {
		pair, err := openPg(t, dsn, "killed").Get(t.Context(), c.key)
		require.NoError(t, err, "%d acknowledged, the last error: %v", c.acks.Load(), c.last.Load())
		require.GreaterOrEqual(t, pair.Version, c.acked.Load())
	}
	t.Logf("%d acknowledged writes, %d kills", acks(), rounds)
}

// On a full disk writes that need room are refused, and known not to be
// applied; the others go on, and all do once there is room.
func TestPostgresOnAFullDisk(t *testing.T) {
	t.Parallel()
	server := postgreslocal.Own(t)
	dsn := server.DSN(postgreslocal.Superuser, "", pgTimeout)
	require.NoError(t, pgkv.EnsureTable(t.Context(), openPostgres(t, dsn)))
	pair, err := openPg(t, dsn, "full").AtomicPut(t.Context(), "heartbeat")
	require.NoError(t, err)

	restart := func(most int64) {
		require.NoError(t, server.Kill())
		server.MaxFile = most
		require.NoError(t, server.Start(t.Context()))
	}
	restart(2 << 20)
	store := openPg(t, dsn, "full")
	value := make([]byte, 300<<10)
	_, err = crand.Read(value)
	require.NoError(t, err)
	written := 0
	for ; ; written++ {
		require.Less(t, written, 100, "the disk is never full")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err = store.AtomicPut(ctx, fmt.Sprint("large/", written), kv.WithBytes(value))
		cancel()
		if err != nil {
			break
		}
	}
	require.NotErrorIs(t, err, kv.ErrUncertain)
	t.Logf("after %d values: %v", written, err)
	exists, err := store.Exists(t.Context(), fmt.Sprint("large/", written))
	require.NoError(t, err)
	require.False(t, exists)
	for range 20 {
		pair, err = store.AtomicPut(t.Context(), "heartbeat", kv.WithPrevious(pair))
		require.NoError(t, err)
	}
	pairs, err := store.List(t.Context(), "large/")
	require.NoError(t, err)
	require.Len(t, pairs, written)

	restart(0)
	_, err = openPg(t, dsn, "full").AtomicPut(t.Context(), fmt.Sprint("large/", written), kv.WithBytes(value))
	require.NoError(t, err)
}
