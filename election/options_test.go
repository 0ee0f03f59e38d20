package election_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

func TestBadArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	c, err := lease.New(memkv.New())
	require.NoError(t, err)
	_, err = election.New(nil, "name")
	require.ErrorIs(t, err, lease.ErrInvalid)
	for _, name := range []string{"", "\xff", strings.Repeat("x", election.MaxNameSize+1)} {
		_, err = election.New(c, name)
		require.ErrorIs(t, err, lease.ErrInvalid)
	}
	_, err = election.New(c, strings.Repeat("x", election.MaxNameSize))
	require.NoError(t, err)
	for _, option := range []election.Option{
		nil, election.WithLogger(nil), election.WithClock(nil), election.WithValue(make([]byte, lease.MaxValueSize+1)),
	} {
		_, err = election.New(c, "name", election.WithGrace(0), option, election.WithGrace(0))
		require.ErrorIs(t, err, lease.ErrInvalid)
	}
}

func TestDurationsOutOfBoundsAreRefused(t *testing.T) {
	t.Parallel()
	c, err := lease.New(memkv.New())
	require.NoError(t, err)
	for name, option := range map[string]struct {
		make        func(time.Duration) election.Option
		least, most time.Duration
	}{
		"WithPoll":  {election.WithPoll, 10 * time.Millisecond, time.Hour},
		"WithGrace": {election.WithGrace, 0, time.Hour},
	} {
		for _, d := range []time.Duration{option.least, option.most} {
			_, err = election.New(c, "name", option.make(d))
			require.NoError(t, err, "%s(%v)", name, d)
		}
		for _, d := range []time.Duration{math.MinInt64, option.least - 1, option.most + 1, math.MaxInt64} {
			_, err = election.New(c, "name", option.make(d))
			require.ErrorIs(t, err, lease.ErrInvalid, "%s(%v)", name, d)
			require.ErrorContains(t, err, name+"("+d.String()+")", "it names the value")
		}
	}
}

func TestRunWithoutAFunctionIsRefusedBeforeItSendsAnything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := a.Run(ctx, nil)
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, "function")
		require.Empty(t, a.link.take())
	})
}

func TestCampaignRefusesAValueThatIsTooLongBeforeItSendsAnything(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, a, _ := two(t)
		_, err := a.Campaign(t.Context(), make([]byte, lease.MaxValueSize+1))
		require.ErrorIs(t, err, lease.ErrInvalid)
		require.ErrorContains(t, err, "262145 bytes")
		require.Empty(t, a.link.take())
		term, err := a.Campaign(t.Context(), make([]byte, lease.MaxValueSize))
		require.NoError(t, err)
		require.ErrorIs(t, term.Proclaim(t.Context(), make([]byte, lease.MaxValueSize+1)), lease.ErrInvalid)
		require.NoError(t, term.Resign(t.Context()))
	})
}
