package election_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/lease"
)

// What comes with an error is nil, and a deferred Resign is called on it.
func TestANilTermDoesNotLead(t *testing.T) {
	t.Parallel()
	var term *election.Term
	require.False(t, term.Held())
	require.False(t, term.TakenOver())
	require.ErrorIs(t, term.Err(), lease.ErrNotHeld)
	require.ErrorIs(t, context.Cause(term.Context()), lease.ErrNotHeld)
	require.Zero(t, term.Token())
	require.Zero(t, term.Remaining())
	require.Nil(t, term.Value())
	require.Empty(t, term.Condition().Key)
	require.ErrorIs(t, term.Proclaim(t.Context(), nil), lease.ErrNotHeld)
	require.NoError(t, term.Resign(t.Context()))
}
