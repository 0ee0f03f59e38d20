package lease_test

import (
	"context"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// tenYears bounds what a key may ask for.
const tenYears = 10 * 365 * 24 * time.Hour

// outside are durations that are out of bounds, some of which make sums and
// products overflow.
func outside(least, most time.Duration) []time.Duration {
	return []time.Duration{math.MinInt64, -1, least - 1, most + 1, 1e18, math.MaxInt64}
}

func TestDurationsOfAClientOutOfBoundsAreRefused(t *testing.T) {
	t.Parallel()
	for name, option := range map[string]struct {
		make        func(time.Duration) lease.Option
		least, most time.Duration
	}{
		"WithTTL":          {lease.WithTTL, 3 * time.Second, 24 * time.Hour},
		"WithHeartbeat":    {lease.WithHeartbeat, 100 * time.Millisecond, 24 * time.Hour},
		"WithMargin":       {lease.WithMargin, 100 * time.Millisecond, 24 * time.Hour},
		"WithMaxClockSkew": {lease.WithMaxClockSkew, time.Millisecond, 24 * time.Hour},
	} {
		for _, d := range outside(option.least, option.most) {
			_, err := lease.New(memkv.New(), option.make(d))
			require.ErrorIs(t, err, lease.ErrInvalid, "%s(%v)", name, d)
			require.ErrorContains(t, err, fmt.Sprintf("%s(%v): want %v to %v", name, d, option.least, option.most))
		}
	}
	for _, d := range [][2]time.Duration{
		{0, time.Second}, {math.MinInt64, time.Second}, {2, 1}, {time.Second, time.Second - 1},
		{time.Second, time.Hour + 1}, {time.Second, math.MaxInt64}, {math.MaxInt64, math.MaxInt64},
	} {
		_, err := lease.New(memkv.New(), lease.WithPoll(d[0], d[1]))
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, fmt.Sprintf("WithPoll(%v, %v): want 1ms to 1h0m0s", d[0], d[1]))
	}
}

func TestDurationsOfAClientAtTheirBoundsAreTaken(t *testing.T) {
	t.Parallel()
	long := lease.WithTTL(lease.MaxTTL)
	for name, options := range map[string][]lease.Option{
		"the shortest TTL":       {lease.WithTTL(lease.MinTTL)},
		"the longest TTL":        {long},
		"the shortest heartbeat": {lease.WithHeartbeat(100 * time.Millisecond)},
		"the shortest margin":    {lease.WithMargin(100 * time.Millisecond)},
		"a long margin":          {long, lease.WithMargin(12 * time.Hour)},
		"a long heartbeat":       {long, lease.WithHeartbeat(19 * time.Hour)},
		"the shortest skew":      {lease.WithMaxClockSkew(time.Millisecond)},
		"the longest skew":       {lease.WithMaxClockSkew(24 * time.Hour)},
		"the shortest polls":     {lease.WithPoll(time.Millisecond, time.Millisecond)},
		"the longest polls":      {lease.WithPoll(time.Hour, time.Hour)},
	} {
		_, err := lease.New(memkv.New(), options...)
		require.NoError(t, err, name)
	}
	for name, options := range map[string][]lease.Option{
		"heartbeat": {long, lease.WithHeartbeat(20 * time.Hour)},
		"margin":    {long, lease.WithMargin(24 * time.Hour)},
	} {
		_, err := lease.New(memkv.New(), options...)
		require.ErrorIs(t, err, lease.ErrInvalid, name)
		require.ErrorContains(t, err, "leaves no room", name)
	}
}

func TestDurationsOfAnAcquireOutOfBoundsAreRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, link := w.client("a", lease.WithTTL(15*time.Second))
		for name, option := range map[string]struct {
			make        func(time.Duration) lease.AcquireOption
			least, most time.Duration
		}{
			"WithRetention":    {lease.WithRetention, time.Second, tenYears},
			"WithMaxHold":      {lease.WithMaxHold, time.Second, tenYears},
			"WithMinRemaining": {lease.WithMinRemaining, 0, 8 * time.Second},
		} {
			for _, d := range outside(option.least, option.most) {
				_, err := a.TryAcquire(t.Context(), "key", option.make(d))
				require.ErrorIs(t, err, lease.ErrInvalid, "%s(%v)", name, d)
				require.ErrorContains(t, err, fmt.Sprintf("%s(%v): want %v to %v", name, d, option.least, option.most))
			}
			require.Empty(t, link.Take(), "before any request")
			for _, d := range []time.Duration{option.least, option.most} {
				l, err := a.TryAcquire(t.Context(), name+d.String(), option.make(d))
				require.NoError(t, err)
				require.True(t, l.Held())
				require.NoError(t, l.Release(t.Context()))
			}
			link.Take()
		}
	})
}

func TestR12LiveHolderIsSafeFromTheGreatestClockSkew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, _ := w.client("a")
		b, _ := w.client("b", lease.WithMaxClockSkew(24*time.Hour))
		l := w.acquire(a, "key")
		for range 10 {
			time.Sleep(ttl)
			_, err := b.TryAcquire(t.Context(), "key")
			require.ErrorIs(t, err, lease.ErrHeld)
		}
		require.True(t, l.Held())
	})
}

// What somebody has written there must not make a key unusable.
func TestR19SpansInARowThatAreOutOfBoundsAreKeptWithinThem(t *testing.T) {
	t.Parallel()
	for row, want := range map[string]struct{ maxHold, sweep time.Duration }{
		`"max_hold_ms":9223372036854775807,"sweep_ms":9223372036854775807`:   {tenYears, tenYears},
		`"max_hold_ms":9223372036854775,"sweep_ms":315360000001`:             {tenYears, tenYears},
		`"max_hold_ms":-1,"sweep_ms":-1`:                                     {0, 0},
		`"max_hold_ms":-9223372036854775808,"sweep_ms":-9223372036854775808`: {0, 0},
		`"max_hold_ms":5,"sweep_ms":5`:                                       {5 * time.Millisecond, time.Second},
		`"max_hold_ms":315360000000,"sweep_ms":315360000000`:                 {tenYears, tenYears},
		`"f":2`: {0, 0},
	} {
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				value := `{"f":2,"session":"dead","acq":"x","keep":true,` + row + `}`
				require.NoError(t, w.store.Put(t.Context(), "lease/key", kv.WithString(value)))
				store := &hints{Store: w.store, swept: map[string]time.Duration{}}
				c, err := lease.New(store, lease.WithTTL(ttl))
				require.NoError(t, err)
				require.Equal(t, want.maxHold, inspect(t, c, "key").MaxHold)
				require.NoError(t, w.acquire(c, "key").Release(t.Context()))
				require.Equal(t, want.sweep, store.Of("lease/key"))
				require.NoError(t, c.Close(t.Context()))
			})
		})
	}
}

// unsure is a store whose unanswered writes may land at any time.
type unsure struct{ *link }

func (unsure) MaxWriteDelay() time.Duration { return math.MaxInt64 }

func TestR14WriteDelayWithoutBoundIsCountedRight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		link := newLink(w.store)
		a, err := lease.New(unsure{link}, lease.WithTTL(ttl))
		require.NoError(t, err)
		w.turn(a, "warm")
		var land func(context.Context) error
		link.SetIntercept(func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
			if call.Op == "AtomicPut" && call.Key == "lease/key" {
				land = next
				return &kv.UncertainError{Key: call.Key, Err: errLost}
			}
			return next(ctx)
		})
		_, err = a.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrUncertain)
		time.Sleep(time.Hour)
		require.NoError(t, land(t.Context()))
		time.Sleep(time.Minute)
		require.Empty(t, w.rows("lease/"))
		require.NoError(t, a.Close(t.Context()))
	})
}

func TestTTLOverflowIsOutOfBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, _ := w.client("b")
		_, err := w.store.AtomicPut(t.Context(), "session/x", kv.WithString(`{"f":2,"ttl_ms":18446744090000,"nonce":"00"}`))
		require.NoError(t, err)
		_, err = w.store.AtomicPut(t.Context(), "lease/key", kv.WithString(`{"f":2,"session":"x","acq":"y"}`))
		require.NoError(t, err)
		_, err = b.TryAcquire(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrFormat)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = b.Acquire(ctx, "key")
		require.ErrorIs(t, err, kv.ErrFormat)
	})
}

func TestNilOptions(t *testing.T) {
	require.NotPanics(t, func() {
		_, err := lease.New(memkv.New(), nil)
		require.ErrorIs(t, err, lease.ErrInvalid)
	})
	c, _ := lease.New(memkv.New())
	require.NotPanics(t, func() {
		_, err := c.TryAcquire(t.Context(), "key", nil)
		require.ErrorIs(t, err, lease.ErrInvalid)
	})
}
