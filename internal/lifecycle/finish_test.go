package lifecycle_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/lifecycle"
)

// A lease that was handed to a call ends by itself, and is given back, before the
// call has looked at it. Then the call gives it back too.
func TestACallThatIsUnderWayKeepsCloseWaiting(t *testing.T) {
	t.Parallel()
	l := lifecycle.New(errors.New("closed"))
	_, use, err := l.Begin(t.Context())
	require.NoError(t, err)
	require.True(t, l.BeginClose())
	l.Leave() // the lease
	requireIdle(t, l, false)
	l.Enter()
	use.End()
	requireIdle(t, l, true)
	l.Enter()
	l.Leave() // no panic
	requireIdle(t, l, true)
}

// The lease that a call returns may have ended and been given back just before.
func TestACallWhoseLeaseHasLeftAlreadyIsTheLastUser(t *testing.T) {
	t.Parallel()
	l := lifecycle.New(errors.New("closed"))
	_, use, err := l.Begin(t.Context())
	require.NoError(t, err)
	require.True(t, l.BeginClose())
	l.Leave()
	use.Stays = true
	use.End()
	requireIdle(t, l, true)
}

func requireIdle(t *testing.T, l *lifecycle.Lifecycle, want bool) {
	t.Helper()
	select {
	case <-l.Idle():
		require.True(t, want, "it is idle")
	default:
		require.False(t, want, "it is not idle")
	}
}
