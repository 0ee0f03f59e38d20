//go:build unix

package chaos_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// good is a history without violations: process 1 holds k, is killed at 10 and
// is followed by 2, which is stopped at 20, loses the key to 3, and has a late
// write refused.
func good() history {
	return history{
		bound:  5,
		faults: []fault{{killed, 1, 10, 10}, {stopped, 2, 21, 29}},
		writes: map[string][]write{"k": {{6, 1, 100, 100}, {20, 2, 101, 101}, {27, 3, 102, 102}, {30, 2, 101, 102}}},
		events: []event{
			{5, 1, acquired, "k", 100, ""}, {7, 1, held, "k", 100, ""},
			{14, 2, acquired, "k", 101, ""}, {20, 2, held, "k", 101, ""},
			{29, 2, notHeld, "k", 101, ""}, {30, 2, released, "k", 101, ""}, {31, 2, notHeld, "k", 101, ""},
			{26, 3, acquired, "k", 102, ""}, {28, 3, held, "k", 102, ""}, {29, 3, released, "k", 102, ""},
			{32, 3, failed, "k", 0, "no route"}, {33, 3, late, "k", 103, ""}, {34, 3, released, "k", 103, ""},
		},
	}
}

func TestCheckerPassesWhatIsRight(t *testing.T) {
	t.Parallel()
	f := check(good())
	require.Empty(t, f.violations)
	require.Equal(t, 3, f.grants, "one that was late is none")
	require.Equal(t, 1, f.stale)
	require.Equal(t, 1, f.lost)
	require.Equal(t, []time.Duration{4}, f.takeovers)
}

func TestCheckerFindsEachViolation(t *testing.T) {
	t.Parallel()
	add := func(events ...event) func(*history) {
		return func(h *history) { h.events = append(h.events, events...) }
	}
	tests := map[string]struct {
		bad  func(*history)
		want string
	}{
		"the resource accepts an older token": {func(h *history) {
			h.writes["k"] = append(h.writes["k"], write{35, 2, 101, 101})
		}, "I1: k accepted token 101 after 102"},
		"a write under a token of somebody else": {func(h *history) {
			h.writes["k"] = append(h.writes["k"], write{35, 1, 102, 102})
		}, "log: process 1 wrote"},
		"a token that is smaller": {add(event{40, 4, acquired, "k", 99, ""}), "I2: token of k@99"},
		"a token twice":           {add(event{40, 4, acquired, "k", 102, ""}), "I2: token of k@102"},
		"a later holder while one believes": {add(
			event{40, 4, acquired, "k", 110, ""}, event{45, 4, held, "k", 110, ""}, event{42, 3, acquired, "k", 111, ""},
		), "I3: k@110 of process 4"},
		"a belief that goes on over a whole other grant": {add(
			event{40, 4, acquired, "k", 110, ""}, event{50, 4, held, "k", 110, ""},
			event{42, 3, acquired, "k", 111, ""}, event{43, 3, released, "k", 111, ""}, event{45, 2, acquired, "k", 112, ""},
		), "and k@112 of process 2"},
		"a holder that was stopped believes when it wakes": {func(h *history) { h.events[4].What = held },
			"I3: k@101 of process 2"},
		"held after it was not":     {add(event{35, 2, held, "k", 101, ""}), "I7: held again at 35ns: k@101"},
		"held after Release":        {add(event{35, 3, held, "k", 102, ""}), "I7: held again at 35ns: k@102"},
		"held after it was late":    {add(event{35, 3, held, "k", 103, ""}), "I7: held again at 35ns: k@103"},
		"a key that takes too long": {func(h *history) { h.events[2].At = 16 }, "I5: k took 6ns"},
		"a key that nobody gets again": {func(h *history) {
			h.faults = append(h.faults, fault{killed, 4, 60, 60})
			h.events = append(h.events, event{50, 4, acquired, "k", 110, ""})
		}, "I5: k was not granted again"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := good()
			test.bad(&h)
			require.Contains(t, strings.Join(check(h).violations, "\n"), test.want)
		})
	}
}

func TestOtherFaultsPutOffTheLimitOfAKill(t *testing.T) {
	t.Parallel()
	kill := fault{killed, 1, 10, 10}
	for name, test := range map[string]struct {
		others []fault
		limit  time.Duration
	}{
		"none":                   {nil, 15},
		"one that is over":       {[]fault{{stopped, 2, 1, 9}}, 15},
		"one meanwhile":          {[]fault{{stopped, 2, 8, 12}}, 17},
		"one after another":      {[]fault{{stopped, 2, 18, 22}, {stopped, 3, 8, 14}}, 27},
		"one after the limit is": {[]fault{{stopped, 2, 15, 20}}, 15},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := history{bound: 5, faults: append(test.others, kill)}
			limit, alone := h.limit(kill)
			require.Equal(t, test.limit, limit)
			require.Equal(t, test.limit == 15, alone)
		})
	}
}
