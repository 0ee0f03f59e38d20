package web

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
	"github.com/dynalock/dynalock/pool"
)

// maxPools bounds how many pools are looked for.
const maxPools = 500

// poolNames finds the pools that have partitions: a read of one row for each.
func poolNames(ctx context.Context, client *lease.Client) ([]string, error) {
	var names []string
	after := rows.PoolKeys
	for len(names) < maxPools {
		found := false
		options := []kv.ReadOption{kv.EventuallyConsistent(), kv.WithLimit(1), kv.WithStartAfter(rows.LeasePrefix + after)}
		for h, err := range client.Keys(ctx, rows.PoolKeys, options...) {
			if h == nil {
				return nil, err
			}
			name, _, partition := strings.Cut(strings.TrimPrefix(h.Key, rows.PoolKeys), "/")
			if partition && (len(names) == 0 || names[len(names)-1] != name) {
				names = append(names, name)
			}
			// Behind its partitions, and in any case behind this key.
			found, after = true, max(h.Key, rows.PoolKeys+name+"/\U0010ffff")
			break
		}
		if !found {
			break
		}
	}
	return names, nil
}

// partitions are those of a pool.
type partitions struct {
	rows []*partitionRow
	// counts is how many there are of each state.
	counts map[string]int
}

// partitionRow is a partition, without its checkpoint.
type partitionRow struct {
	*pool.Partition
	// Size is the checkpoint's, in bytes.
	Size    int
	Problem string
}

// Mark says what is to become of the partition: "held", "idle", "paused", "removed",
// "done", "failed" or "unread".
func (p *partitionRow) Mark() string {
	switch {
	case p.Problem != "":
		return "unread"
	case p.Done:
		return "done"
	case p.Failed:
		return "failed"
	case p.Removed:
		return "removed"
	case p.Paused:
		return "paused"
	case p.Session != "":
		return "held"
	}
	return "idle"
}

// marks are what Mark returns, in the order in which they are shown.
var marks = []string{"held", "idle", "paused", "removed", "done", "failed", "unread"}

func readPartitions(ctx context.Context, client *lease.Client, name string) (*partitions, error) {
	p, err := pool.New(client, name, nil)
	if err != nil {
		return nil, err
	}
	found := &partitions{counts: map[string]int{}}
	for item, err := range p.Partitions(ctx, kv.EventuallyConsistent()) {
		if item == nil {
			return nil, err
		}
		row := &partitionRow{Partition: item, Size: len(item.Checkpoint)}
		item.Checkpoint = nil // it may be long
		if err != nil {
			row.Problem = err.Error()
		}
		found.rows = append(found.rows, row)
		found.counts[row.Mark()]++
	}
	return found, nil
}

// poolMember is a process in a pool.
type poolMember struct {
	*session
	// Partitions is how many it has, Weight what they weigh together.
	Partitions, Weight int
	// Max is how many it takes, 0: any number.
	Max int
	// Cordoned: it takes no new ones.
	Cordoned bool
}

// membersOf returns the members of a pool, and whoever else has partitions of it.
func membersOf(name string, k *snapshot, p *partitions) []*poolMember {
	byID := map[string]*poolMember{}
	for _, s := range k.sessions {
		m := &poolMember{session: s, Cordoned: slices.Contains(s.Joined, "pool-cordoned/"+name)}
		for _, group := range s.Joined {
			if bound, ok := strings.CutPrefix(group, "pool-max/"+name+"/"); ok {
				m.Max, _ = strconv.Atoi(bound) // what is no number is no bound
			}
		}
		if slices.Contains(s.Joined, rows.PoolKeys+name) {
			byID[s.Session] = m
		}
	}
	for _, row := range p.rows {
		if row.Session == "" || row.Problem != "" {
			continue
		}
		m := byID[row.Session]
		if m == nil {
			s := k.byID[row.Session]
			if s == nil {
				s = &session{Member: &lease.Member{Session: row.Session, Owner: row.Owner}, State: stateGone}
			}
			m = &poolMember{session: s}
			byID[row.Session] = m
		}
		m.Partitions++
		m.Weight += row.Weight
	}
	members := make([]*poolMember, 0, len(byID))
	for _, m := range byID {
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b *poolMember) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Session, b.Session))
	})
	return members
}

// slotRow is a slot of a job that is done once.
type slotRow struct {
	*lock.FoundSlot
	Problem string
}

// readSlots reads the slots, the latest first.
func readSlots(ctx context.Context, client *lease.Client) ([]*slotRow, error) {
	var found []*slotRow
	for s, err := range lock.Slots(ctx, client, kv.EventuallyConsistent()) {
		if s == nil {
			return nil, err
		}
		row := &slotRow{FoundSlot: s}
		if err != nil {
			row.Problem = err.Error()
		}
		found = append(found, row)
	}
	slices.SortStableFunc(found, func(a, b *slotRow) int { return b.Outcome.Started.Compare(a.Outcome.Started) })
	return found, nil
}

// state says how far a slot has come. A run whose process is gone is abandoned.
func (s *slotRow) state(k *snapshot) string {
	switch o := s.Outcome; {
	case s.Problem != "":
		return "unread"
	case o.State == lock.StateRunning && (s.Session == "" || k.byID[s.Session] == nil):
		return string(lock.StateAbandoned)
	case o.State == lock.StateNone && s.Session != "":
		return "claimed"
	case o.State == lock.StateNone:
		return "not started"
	default:
		return string(o.State)
	}
}

// keyView is one key with all that is known of it.
type keyView struct{ *lease.Holder }

func readKey(ctx context.Context, client *lease.Client, key string) (keyView, error) {
	h, err := client.Inspect(ctx, key)
	if err != nil {
		return keyView{}, fmt.Errorf("reading %q: %w", key, err)
	}
	return keyView{h}, nil
}
