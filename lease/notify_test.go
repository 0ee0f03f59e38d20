package lease_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/lease"
)

// told reports whether a channel of Notify is closed.
func told(near <-chan struct{}) bool {
	select {
	case <-near:
		return true
	default:
		return false
	}
}

func TestNotifyTellsWhenSoMuchTrustIsLeft(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a")
		l := w.acquire(a, "key")
		near := l.Notify(3 * time.Second)
		time.Sleep(time.Hour)
		require.False(t, told(near), "heartbeats go on")
		link.SetCut(true)
		<-near
		require.True(t, l.Held())
		require.Equal(t, 3*time.Second, l.Remaining().Round(time.Millisecond))
		link.SetCut(false)
		time.Sleep(2900 * time.Millisecond)
		require.True(t, l.Held(), "a heartbeat came in time")
		require.True(t, told(near), "it is told once")
		require.False(t, told(l.Notify(3*time.Second)), "another one begins anew")
		require.True(t, told(l.Notify(ttl)), "that much is never left")
	})
}

func TestNotifyTellsOfTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		l := w.acquire(a, "key")
		near, never := l.Notify(time.Second), l.Notify(0)
		require.NoError(t, l.Release(t.Context()))
		synctest.Wait()
		require.True(t, told(near) && told(never), "at once")
		require.True(t, told(l.Notify(time.Second)), "of one that has ended")
		l, err := a.TryAcquire(t.Context(), "key", lease.WithMaxHold(time.Minute))
		require.NoError(t, err)
		began := time.Now()
		<-l.Notify(5 * time.Second)
		require.Equal(t, 55*time.Second, time.Since(began), "of the end that WithMaxHold sets")
		near = l.Notify(time.Second)
		go func() { _ = a.Close(t.Context()) }()
		<-near
		_ = l.Release(t.Context())
	})
}

// R4: the clock that counts most counts.
func TestNotifyLooksAtAllClocks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link, c := w.skewed("a", 1)
		l := w.acquire(a, "key")
		time.Sleep(time.Minute)
		near := l.Notify(l.Remaining() - 5*time.Second)
		link.SetCut(true)
		c.Step(2 * time.Second) // due in 3 s
		time.Sleep(3500 * time.Millisecond)
		require.True(t, l.Held())
		require.True(t, told(near))
	})
}
