package pool_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/pool"
)

func TestPoolMembersOfAFleetThatStartsTakeTheirShareAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(100)
		began := time.Now()
		var members []*member
		for i := range 5 {
			name := fmt.Sprint(i)
			members = append(members, w.member(name, b.handler(name)))
			time.Sleep(interval / 60)
		}
		b.await(t, 2*time.Second, 100, 5)
		t.Logf("balanced after %v", time.Since(began))
		time.Sleep(5 * interval)
		require.Zero(t, b.takeMoves(), "taken and given away")
		for _, m := range members {
			m.leave(t)
		}
	})
}

func TestPoolMemberThatIsAloneBeginsAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(100)
		m := w.member("0", b.handler("0"))
		synctest.Wait()
		require.Equal(t, pool.DefaultMaxMoves, b.load()["0"])
		time.Sleep(interval/10 + time.Millisecond)
		synctest.Wait()
		require.Equal(t, 100, b.load()["0"])
		m.leave(t)
	})
}
