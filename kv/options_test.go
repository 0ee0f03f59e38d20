package kv_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

func TestAnOptionServesManyGoroutines(t *testing.T) {
	t.Parallel()
	index := kv.WithGlobalIndex("index", "field", 7, "sort")
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			settings, err := kv.ListSettings("", []kv.ReadOption{index, kv.EventuallyConsistent()})
			if err != nil || settings.Index.PartitionValue != int64(7) {
				t.Errorf("%v %v", settings.Index, err)
			}
			settings.Index.PartitionValue = "the caller's"
		})
	}
	wg.Wait()
	settings, err := kv.ListSettings("", []kv.ReadOption{index})
	require.NoError(t, err)
	require.Equal(t, int64(7), settings.Index.PartitionValue)
}

// errorOf is what an option makes of a call.
func errorOf(option any) error {
	switch o := option.(type) {
	case kv.CallOption:
		_, write := kv.PutSettings("k", []kv.WriteOption{o})
		_, read := kv.GetSettings("k", []kv.ReadOption{o})
		_, remove := kv.CheckDelete("k", []kv.DeleteOption{o})
		if (write == nil) != (read == nil) || (write == nil) != (remove == nil) {
			return fmt.Errorf("they do not agree: %w", errors.Join(write, read, remove))
		}
		return write
	case kv.WriteOption:
		_, err := kv.PutSettings("k", []kv.WriteOption{o})
		return err
	case kv.WatchOption:
		for _, err := range kv.Watch(context.Background(), memkv.New(), "", o) {
			return err
		}
	}
	return fmt.Errorf("a %T is no option", option)
}

func TestDurationsHaveBounds(t *testing.T) {
	t.Parallel()
	const short = 10 * time.Millisecond
	for _, c := range []struct {
		name        string
		option      func(time.Duration) any
		least, most time.Duration
	}{
		{"WithTTL", func(d time.Duration) any { return kv.WithTTL(d) }, time.Millisecond, kv.MaxTTL},
		{"WithSweepAfter", func(d time.Duration) any { return kv.WithSweepAfter(d) }, time.Second, kv.MaxTTL},
		{"WithAttemptTimeout", func(d time.Duration) any { return kv.WithAttemptTimeout(d) }, short, time.Minute},
		{"WithWatchInterval", func(d time.Duration) any { return kv.WithWatchInterval(d) }, short, time.Hour},
	} {
		for _, d := range []time.Duration{c.least, c.most} {
			require.NoError(t, errorOf(c.option(d)), "%s(%v)", c.name, d)
		}
		for _, d := range []time.Duration{math.MinInt64, -1, 0, c.least - 1, c.most + 1, math.MaxInt64} {
			err := errorOf(c.option(d))
			require.ErrorIs(t, err, kv.ErrInvalidOption, "%s(%v)", c.name, d)
			require.ErrorContains(t, err, fmt.Sprintf("%s(%v): want %v to %v", c.name, d, c.least, c.most))
		}
	}
}

// Who asks to keep the expiry of a pair that was made by hand must not make one
// that no store can read.
func TestAKeptExpiryIsATime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		expires time.Time
		want    error
	}{
		{time.Time{}, nil},
		{time.Unix(0, 0), nil},
		{time.Now().Add(kv.MaxTTL), nil},
		{time.Unix(0, -1), kv.ErrInvalidOption},
		{time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), kv.ErrInvalidOption},
		{time.Unix(math.MaxInt64, 0), kv.ErrInvalidOption},
	} {
		previous := kv.NewPair("k", 1, nil, c.expires, nil)
		_, err := kv.AtomicPutSettings("k", []kv.WriteOption{kv.WithPrevious(previous), kv.WithKeepTTL()})
		require.ErrorIs(t, err, c.want, "%v", c.expires)
		_, err = kv.AtomicPutSettings("k", []kv.WriteOption{kv.WithPrevious(previous)})
		require.NoError(t, err, "its expiry is not used")
	}
}
