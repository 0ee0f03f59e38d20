package lock_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// What comes with an error is nil, and a deferred Release is called on it.
func TestWhatComesWithAnErrorIsNotHeld(t *testing.T) {
	t.Parallel()
	var read *lock.ReadLease
	require.False(t, read.Held())
	require.ErrorIs(t, read.Err(), lease.ErrNotHeld)
	require.ErrorIs(t, context.Cause(read.Context()), lease.ErrNotHeld)
	require.Zero(t, read.Remaining())
	require.Zero(t, read.Epoch())
	require.Nil(t, read.Lease())
	require.NoError(t, read.Release(t.Context()))

	var multi *lock.MultiLease
	require.False(t, multi.Held())
	require.ErrorIs(t, multi.Err(), lease.ErrNotHeld)
	require.ErrorIs(t, context.Cause(multi.Context()), lease.ErrNotHeld)
	require.Zero(t, multi.Remaining())
	require.Nil(t, multi.Lease("name"))
	require.Empty(t, multi.Tokens())
	require.NoError(t, multi.Release(t.Context()))
}
