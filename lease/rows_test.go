package lease_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/lease"
)

func TestRowsAreReadWithTheBoundsOfTheOptions(t *testing.T) {
	t.Parallel()
	require.Equal(t, rows.MinTTL, lease.MinTTL)
	require.Equal(t, rows.MaxTTL, lease.MaxTTL)
}
