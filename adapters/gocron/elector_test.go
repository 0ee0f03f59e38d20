package gocronlock_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/adapters/gocron"
	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv/memkv"
)

func TestJobsRunOnTheLeaderAndMoveWithIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := memkv.New()
		var runs [3]atomic.Int32
		var resign [3]context.CancelFunc
		var elections [3]*election.Election
		for i := range runs {
			e, err := election.New(newClient(t, store), "jobs")
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = e.Run(ctx, func(ctx context.Context, _ *election.Term) error { <-ctx.Done(); return nil })
			}()
			elections[i], resign[i] = e, func() { cancel(); <-done }
			defer resign[i]()
			elector, err := gocronlock.NewElector(e)
			require.NoError(t, err)
			s, err := gocron.NewScheduler(gocron.WithDistributedElector(elector))
			require.NoError(t, err)
			_, err = s.NewJob(gocron.DurationJob(time.Minute), gocron.NewTask(func() { runs[i].Add(1) }))
			require.NoError(t, err)
			s.Start()
			defer func() { require.NoError(t, s.Shutdown()) }()
		}
		counts := func() (total int32, leader int) {
			leader = -1
			for i, e := range elections {
				total += runs[i].Swap(0)
				if e.IsLeader() {
					leader = i
				}
			}
			return total, leader
		}
		time.Sleep(10*time.Minute + 30*time.Second)
		total, first := counts()
		require.EqualValues(t, 10, total)
		resign[first]()
		time.Sleep(10 * time.Minute)
		total, next := counts()
		require.EqualValues(t, 10, total)
		require.NotEqual(t, first, next)
		require.NoError(t, must(gocronlock.NewElector(elections[next])).IsLeader(t.Context()))
		require.ErrorIs(t, must(gocronlock.NewElector(elections[first])).IsLeader(t.Context()), gocronlock.ErrNotLeader)
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
