package pool

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
)

// taken takes n slots, which must be free.
func (s *slots) taken(t *testing.T, n int) (done []func()) {
	t.Helper()
	for range n {
		require.NotEmpty(t, s.free, "only %d are free", len(done))
		put, err := s.take(t.Context())
		require.NoError(t, err)
		done = append(done, put)
	}
	return done
}

// One more is sent at a time when as many as that were answered soon one after
// the other: those before one that was not do not count.
func TestSlotsCountPromptAnswersInARow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const attempt = 3 * time.Second
		s := newSlots(clock.System, attempt)
		answered := func(after time.Duration) {
			done := s.taken(t, 1)
			time.Sleep(after)
			done[0]()
		}
		answered(0)
		answered(0)
		answered(0)
		require.Equal(t, 3, s.limit)
		answered(0) // the second in a row of three
		answered(2 * time.Second)
		require.Equal(t, 2, s.limit, "one that came late")
		answered(0)
		require.Equal(t, 2, s.limit, "one in a row")
		answered(0)
		require.Equal(t, 3, s.limit, "two in a row")
	})
}

// A burst goes on while one of its requests is on the wire, however long that
// takes.
func TestSlotsBeginAnewOnlyWhenNothingIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSlots(clock.System, time.Minute)
		for range 2 + 3 + 4 + 5 {
			s.taken(t, 1)[0]()
		}
		require.Equal(t, 6, s.limit)
		slow := s.taken(t, 1)
		time.Sleep(2 * lull)
		second := s.taken(t, 1)
		require.Equal(t, 6, s.limit)
		slow[0]()
		second[0]()
		time.Sleep(2 * lull)
		s.taken(t, 1)[0]()
		require.Equal(t, fewRequests, s.limit)
	})
}
