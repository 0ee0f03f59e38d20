package lease_test

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
)

func TestHolderAndMemberSayAllThatTheirRowsSay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b")
		opened := time.Now()
		leave, err := a.Join(t.Context(), "group")
		require.NoError(t, err)
		defer leave()
		time.Sleep(ttl)
		l := w.acquire(a, "key")
		acquired := time.Now()
		time.Sleep(ttl)

		h := inspect(t, b, "key")
		require.Equal(t, "key", h.Key)
		require.Equal(t, "a", h.Owner)
		require.Equal(t, l.Token(), h.Token)
		require.Equal(t, acquired.UnixNano(), h.Acquired.UnixNano())
		require.Nil(t, h.Value)
		require.Zero(t, h.MaxHold)
		m := h.Member
		require.Equal(t, h.Session, m.Session)
		require.Equal(t, "a", m.Owner)
		host, err := os.Hostname()
		require.NoError(t, err)
		require.Equal(t, host, m.Host)
		require.Equal(t, os.Getpid(), m.PID)
		require.Equal(t, opened.UnixNano(), m.Since.UnixNano())
		require.True(t, m.RenewedAt.After(acquired))
		require.Less(t, time.Since(m.RenewedAt), ttl/2)
		require.Equal(t, ttl, m.TTL)
		require.Equal(t, []string{"group"}, m.Joined)

		var holders []*lease.Holder
		for h, err := range b.Holders(t.Context(), "") {
			require.NoError(t, err)
			holders = append(holders, h)
		}
		h.Member = nil
		require.Equal(t, []*lease.Holder{h}, holders)
	})
}
