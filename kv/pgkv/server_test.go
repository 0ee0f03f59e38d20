package pgkv

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
)

// An answer that took long says less of the server's time than an earlier one that
// did not. One that is far behind says that the server's clock was set back.
func TestTheServersTimeIsThatOfTheQuickestAnswer(t *testing.T) {
	t.Parallel()
	var c serverClock
	server := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	after := func(d time.Duration) clock.Reading { return clock.Reading{Mono: time.Hour + d} }
	c.hear(server, after(0))
	c.hear(server.Add(time.Second-hearing+1), after(time.Second))
	require.Equal(t, server.Add(time.Second), c.at(after(time.Second)), "it took almost as long as is forgiven")
	c.hear(server.Add(2*time.Second+1), after(2*time.Second))
	require.Equal(t, server.Add(2*time.Second+1), c.at(after(2*time.Second)), "it was quicker than the first")
	c.hear(server.Add(3*time.Second-hearing), after(3*time.Second))
	require.Equal(t, server.Add(3*time.Second-hearing), c.at(after(3*time.Second)), "the clock was set back")
}
