package lease_test

import (
	"context"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
)

// What comes with an error is nil, and a deferred Release is called on it.
func TestANilLeaseIsOneThatIsNotHeld(t *testing.T) {
	t.Parallel()
	var l *lease.Lease
	require.False(t, l.Held())
	require.ErrorIs(t, l.Err(), lease.ErrNotHeld)
	require.NoError(t, l.Release(t.Context()))
	require.ErrorIs(t, l.Update(t.Context(), nil), lease.ErrNotHeld)
	require.ErrorIs(t, l.ReleaseWith(t.Context(), nil), lease.ErrNotHeld)
	require.ErrorIs(t, context.Cause(l.Context()), lease.ErrNotHeld)
	select {
	case <-l.Notify(time.Second):
	case <-time.After(time.Minute):
		require.Fail(t, "it has ended")
	}
	require.Empty(t, l.Condition().Key)

	// Whatever else there is returns nothing, and does not panic.
	asked := map[string]bool{
		"Held": true, "Err": true, "Release": true, "Update": true, "ReleaseWith": true, "Context": true, "Notify": true,
		"Condition": true,
	}
	value := reflect.ValueOf(l)
	for i := range value.NumMethod() {
		if name := value.Type().Method(i).Name; !asked[name] {
			require.True(t, value.Method(i).Call(nil)[0].IsZero(), name)
		}
	}
}
