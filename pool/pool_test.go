package pool_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// interval is the plan interval at the defaults.
const interval = 10 * time.Second

func TestPoolBalancesWhenAMemberJoinsWithNoMoveTooMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, b := newWorld(t), newLedger()
		w.partitions(100)
		var members []*member
		for i := range 4 {
			name := fmt.Sprint(i)
			members = append(members, w.member(name, b.handler(name)))
		}
		b.await(t, 2*time.Minute, 100, 4)
		time.Sleep(time.Minute)
		b.takeMoves()
		members = append(members, w.member("4", b.handler("4")))
		took := b.await(t, 40*time.Second, 100, 5)
		time.Sleep(2 * time.Minute)
		require.Equal(t, 20, b.takeMoves())
		b.requireNoOverlap(t)
		t.Logf("balanced after %v", took)
		for _, m := range members {
			m.leave(t)
		}
	})
}
