package lease_test

import (
	"context"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
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
		require.NotZero(t, m.Version)

		var holders []*lease.Holder
		for h, err := range b.Holders(t.Context(), "") {
			require.NoError(t, err)
			holders = append(holders, h)
		}
		h.Member = nil
		require.Equal(t, []*lease.Holder{h}, holders)
	})
}

func TestAMembersVersionRisesWithItsHeartbeatsAndWithNothingElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		b, _ := w.client("b")
		w.acquire(a, "key")
		version := func() uint64 {
			for m, err := range b.Members(t.Context(), kv.EventuallyConsistent()) {
				require.NoError(t, err)
				require.Equal(t, "a", m.Owner)
				return m.Version
			}
			t.Fatal("no member")
			return 0
		}
		first := version()
		require.Equal(t, first, version())
		time.Sleep(ttl / 2)
		second := version()
		require.Greater(t, second, first)
		link.SetCut(true)
		time.Sleep(ttl / 2)
		require.Equal(t, second, version())
	})
}

// reads is a store that remembers how listings were to be read.
type reads struct {
	kv.Store
	eventual []bool
}

func (r *reads) ListPage(ctx context.Context, prefix string, options ...kv.ReadOption) (*kv.Page, error) {
	settings, err := kv.ListSettings(prefix, options)
	if err != nil {
		return nil, err
	}
	r.eventual = append(r.eventual, settings.Eventual)
	return r.Store.ListPage(ctx, prefix, options...)
}

func TestListingsAreStrongUnlessTheOptionsSayOtherwise(t *testing.T) {
	t.Parallel()
	store := &reads{Store: memkv.New()}
	c, err := lease.New(store)
	require.NoError(t, err)
	for range c.Members(t.Context()) {
	}
	for range c.Members(t.Context(), kv.EventuallyConsistent()) {
	}
	for range c.Keys(t.Context(), "") {
	}
	for range c.Keys(t.Context(), "", kv.EventuallyConsistent()) {
	}
	require.Equal(t, []bool{false, true, false, true}, store.eventual)
}
