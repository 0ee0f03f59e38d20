package dynamokv_test

import (
	"crypto/rand"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/kvtest"
)

func TestContract(t *testing.T) {
	endpoint, table := sharedTable(t)
	partition := rand.Text()
	open := func(t *testing.T) kv.Store {
		s, err := dynamokv.New(newClient(endpoint, &wire{base: sharedTransport}), table, dynamokv.WithPartition(partition),
			dynamokv.WithClock(patientClock{clock.System}))
		require.NoError(t, err)
		return s
	}
	kvtest.Run(t, kvtest.Harness{
		Open:   open,
		Second: func(t *testing.T, _ kv.Store) kv.Store { return open(t) },
	})
}
