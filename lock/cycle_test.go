//go:build !race

package lock_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// maxCycleAllocs is what locking and releasing on memkv may allocate. The race
// detector allocates more.
const maxCycleAllocs = 40

func TestALockCycleAllocatesLittle(t *testing.T) { // not parallel: AllocsPerRun counts those of the whole process
	client, err := lease.New(memkv.New())
	require.NoError(t, err)
	defer closeSoon(client)
	m := lock.NewMutex(client, "job")
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() {
		l, err := m.Lock(t.Context())
		require.NoError(t, err)
		require.NoError(t, l.Release(t.Context()))
	}), float64(maxCycleAllocs))
}

func BenchmarkLockCycle(b *testing.B) {
	client, err := lease.New(memkv.New())
	require.NoError(b, err)
	defer closeSoon(client)
	m := lock.NewMutex(client, "job")
	b.ReportAllocs()
	for b.Loop() {
		l, err := m.Lock(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if err := l.Release(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
