package gocronlock

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-co-op/gocron/v2"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/lease"
)

// ErrNotLeader says that another process leads, or none does. gocron skips the job
// then.
var ErrNotLeader = errors.New("gocronlock: not the leader")

// Elector is a gocron.Elector. It is safe for concurrent use. Use NewElector.
type Elector struct {
	election *election.Election
}

var _ gocron.Elector = (*Elector)(nil)

// NewElector returns the elector of schedulers whose jobs run on the leader only.
// Somebody must campaign: let election.Election.Run go on for as long as the
// scheduler does. A nil election is an error that matches lease.ErrInvalid.
//
// Between two leaders nobody runs jobs. gocron does not make up for ticks that
// were skipped. Around a change of leaders a tick can be run by both or by
// neither: where that matters, use New.
func NewElector(e *election.Election) (*Elector, error) {
	if e == nil {
		return nil, fmt.Errorf("gocronlock: NewElector: want an election, not nil: %w", lease.ErrInvalid)
	}
	return &Elector{election: e}, nil
}

// IsLeader returns nil if this process leads now, else ErrNotLeader. No I/O.
func (e *Elector) IsLeader(context.Context) error {
	if !e.election.IsLeader() {
		return ErrNotLeader
	}
	return nil
}
