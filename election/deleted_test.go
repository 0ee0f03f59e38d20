package election_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestALeaderWhoseRowWasDeletedNoticesWithinATTL(t *testing.T) {
	t.Parallel()
	for i := range 10 {
		synctest.Test(t, func(t *testing.T) {
			store := memkv.New()
			a := newProcess(t, store, "a", 1)
			term, err := a.Campaign(t.Context(), nil)
			require.NoError(t, err)
			time.Sleep(time.Minute + time.Duration(i)*time.Second)
			require.True(t, term.Held())
			require.NoError(t, store.Delete(t.Context(), "lease/election/scheduler"))
			b := newProcess(t, store, "b", 1)
			next, err := b.Campaign(t.Context(), nil)
			require.NoError(t, err)
			time.Sleep(ttl + 20*time.Millisecond)
			require.False(t, a.IsLeader())
			lost := &lease.LostError{}
			require.ErrorAs(t, context.Cause(term.Context()), &lost)
			require.Equal(t, lease.ReasonBroken, lost.Reason)
			require.Error(t, term.Resign(t.Context()))
			require.True(t, next.Held())
			require.NoError(t, next.Resign(t.Context()))
		})
	}
}
