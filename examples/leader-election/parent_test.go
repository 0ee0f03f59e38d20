package main

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/examples/internal/terminal"
	"github.com/dynalock/dynalock/lease"
)

// leads is the state in which a process leads.
func leads(name, pid string, token uint64) *election.Leader {
	return &election.Leader{Token: token, Member: &lease.Member{Owner: name}, Value: []byte(pid)}
}

func TestWhatTheParentTellsOfALeaderThatDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newParent(settings{ttl: 5 * time.Second}, terminal.New(&out, nil))
		see := func(l *election.Leader) {
			over, err := p.see(l)
			require.NoError(t, err)
			require.False(t, over)
		}
		see(&election.Leader{})
		see(leads("one", "11", 2))
		require.Nil(t, p.wait())
		p.exited(exit{12, errors.New("exit status 1")})
		require.Nil(t, p.wait(), "12 did not lead")
		p.exited(exit{11, errors.New("signal: killed")})
		time.Sleep(1200 * time.Millisecond)
		require.Equal(t, []string{"  the others wait until the lease of one ends: about 3.8s more"}, p.wait())
		time.Sleep(4 * time.Second)
		require.Equal(t, []string{"  the others wait until the lease of one ends: any moment now"}, p.wait())
		see(&election.Leader{Token: 2})
		see(leads("three", "13", 9))
		require.Nil(t, p.wait())
		require.Equal(t, `nobody leads
one leads; try kill -9 11
process 12 has ended, and did not lead: exit status 1
one with token 2 has ended (signal: killed): the others wait, for about 5s
nobody leads
three leads 5.2s after the crash, with token 9 after 2
three leads; try kill -9 13
`, out.String())
	})
}

func TestWithCrashTheNextLeaderEndsIt(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newParent(settings{ttl: 5 * time.Second, crash: true}, terminal.New(&out, nil))
	_, err := p.see(leads("a stranger", "10", 1))
	require.ErrorContains(t, err, "not one of ours")
	p.leader = leads("one", "11", 2)
	p.exited(exit{11, errors.New("signal: killed")})
	over, err := p.see(leads("two", "12", 3))
	require.NoError(t, err)
	require.True(t, over)
}
