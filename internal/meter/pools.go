package meter

import (
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/pool"
)

// poolState is what is known of a pool. Meter.mu guards it.
type poolState struct {
	// held is how many partitions the clients of this process have.
	held int
	// listed: there was a listing, with so many partitions of each state.
	listed bool
	states map[string]int
	// checkpoints are those that the last listing showed of held partitions.
	checkpoints map[string]checkpoint
}

// checkpoint is one that was seen. Its writer's clock is compared with itself
// only.
type checkpoint struct {
	written time.Time
	token   uint64
	since   clock.Reading
}

// states are those of partitions that nobody works on.
var states = []string{"idle", "paused", "done", "failed", "removed"}

// pool returns the state of a pool, and makes it known. nil: name is empty, or
// there is one too many.
func (m *Meter) pool(name string) *poolState {
	if name == "" {
		return nil
	}
	if p, known := m.pools[name]; known {
		return p
	}
	if len(m.pools) >= MaxNames {
		return nil
	}
	p := &poolState{}
	m.pools[name] = p
	for _, state := range []string{"failed", "stuck"} {
		m.sink.Add(HandlerFailures, 0, Labels{First: name, Second: state})
	}
	return p
}

// CountPartitions reads a listing of a pool. With an error it leaves what the
// last one said.
func (m *Meter) CountPartitions(name string, partitions iter.Seq2[*pool.Partition, error]) error {
	if name == "" || strings.Contains(name, "/") || partitions == nil {
		return fmt.Errorf("counting the partitions of pool %q: want a pool's name and its Partitions: %w",
			name, lease.ErrInvalid)
	}
	counts, checkpoints := map[string]int{}, map[string]checkpoint{}
	for p, err := range partitions {
		if err != nil {
			return fmt.Errorf("counting the partitions of pool %q: %w", name, err)
		}
		state := stateOf(p)
		counts[state]++
		if state == "held" {
			checkpoints[p.Name] = checkpoint{written: p.CheckpointAt, token: p.Token}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.pool(name)
	if s == nil {
		return nil
	}
	now := clock.System.Now()
	for partition, c := range checkpoints {
		c.since = now
		if old, ok := s.checkpoints[partition]; ok && old.written.Equal(c.written) && old.token == c.token {
			c.since = old.since
		}
		checkpoints[partition] = c
	}
	s.listed, s.states, s.checkpoints = true, counts, checkpoints
	return nil
}

func stateOf(p *pool.Partition) string {
	switch {
	case p.Removed:
		return "removed"
	case p.Done:
		return "done"
	case p.Failed:
		return "failed"
	case p.Session != "":
		return "held"
	case p.Paused:
		return "paused"
	}
	return "idle"
}

func (p *poolState) gauges(name string, now clock.Reading, report func(*Instrument, float64, Labels)) {
	report(PoolPartitions, float64(p.held), Labels{First: name, Second: "held"})
	if !p.listed {
		return
	}
	for _, state := range states {
		report(PoolPartitions, float64(p.states[state]), Labels{First: name, Second: state})
	}
	age := time.Duration(0)
	for _, c := range p.checkpoints {
		age = max(age, now.MonotonicSince(c.since))
	}
	report(CheckpointAge, age.Seconds(), Labels{First: name})
}
