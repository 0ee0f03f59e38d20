package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
	"github.com/dynalock/dynalock/pool"
)

// partitionCell is a row of the table of partitions.
type partitionCell struct {
	*partitionRow
	// Doubt is the state of who has the partition, "" if it is live or there is nobody.
	Doubt string
	// Saved is how old the checkpoint is, by its writer's clock.
	Saved time.Duration
	// Error is why the last attempt failed, "" if values are not shown.
	Error string
	Key   string
	Acts  bool
}

func (h *handler) partitionCell(name string, row *partitionRow, k *snapshot) partitionCell {
	c := partitionCell{partitionRow: row, Key: rows.PoolKeys + name + "/" + row.Name, Acts: h.authorize != nil}
	if row.Session != "" {
		c.Doubt = string(stateGone)
		if s := k.byID[row.Session]; s != nil {
			c.Doubt = strings.TrimPrefix(s.Name(), string(stateLive))
		}
	}
	if !row.CheckpointAt.IsZero() {
		c.Saved = h.clock.Now().Wall.Sub(row.CheckpointAt)
	}
	if h.values {
		c.Error = row.LastError
	}
	return c
}

// pool is the page of one pool: its members, and its partitions in pages.
func (h *handler) pool(ctx context.Context, query url.Values) (*view, error) {
	name := query.Get("name")
	if _, err := pool.New(h.client, name, nil); err != nil {
		return &view{
			Name: "bad", Nav: "pools", Title: "No such pool", Query: query, Data: err.Error(), Plain: true,
			status: http.StatusBadRequest, next: time.Hour,
		}, nil
	}
	r, err := h.pools.of(name).current(ctx)
	if err != nil {
		return nil, err
	}
	v, k, err := h.snapshotView(ctx, "pool", "Pool "+name, query)
	if err != nil {
		return nil, err
	}
	also(v, r)
	v.Nav, v.Search = "pools", "partition or owner"
	p := r.value
	if p == nil {
		p = &partitions{}
	}
	chosen, choices := narrow(v, p.rows, marks, (*partitionRow).Mark, func(row *partitionRow) bool {
		return matches(query, row.Name, row.Owner) && ofSession(query, row.Session)
	})
	for _, row := range paged(v, chosen, rowsOfPartitions) {
		v.add("partition", row.Name, h.partitionCell(name, row, k))
	}
	members := membersOf(name, k, p)
	largest := 1
	for _, m := range members {
		largest = max(largest, m.Partitions)
	}
	v.Data = map[string]any{
		"Pool": name, "Choices": choices, "Members": members, "Largest": largest,
		"Total": len(p.rows), "Session": k.byID[query.Get("session")], "Listed": instant(r.at.Wall),
	}
	return v, nil
}

// Share is how many partitions a member has, in percent of the most that one has.
func (m *poolMember) Share(largest int) int { return m.Partitions * 100 / largest }

// slotCell is a row of the table of jobs that are done once.
type slotCell struct {
	*slotRow
	State string
	// Took is how long the run took, by the clocks of who began and ended it. So far,
	// if it runs.
	Took time.Duration
	// Error is the run's, Hidden how many bytes are not shown.
	Error  string
	Hidden int
}

func (h *handler) slotCell(row *slotRow, k *snapshot) slotCell {
	c := slotCell{slotRow: row, State: row.state(k), Error: row.Outcome.Error}
	switch o := row.Outcome; {
	case o.State == lock.StateNone:
	case !o.Ended.IsZero():
		c.Took = o.Ended.Sub(o.Started)
	case c.State == string(lock.StateRunning):
		c.Took = h.clock.Now().Wall.Sub(o.Started)
	}
	if !h.values {
		c.Error, c.Hidden = "", len(c.Error)
	}
	return c
}

// slotStates are the states of slots, in the order in which they are shown.
var slotStates = []string{"running", "claimed", "failed", "abandoned", "done", "not started", "unread"}

func (h *handler) once(ctx context.Context, query url.Values) (*view, error) {
	r, err := h.slots.current(ctx)
	if err != nil {
		return nil, err
	}
	v, k, err := h.snapshotView(ctx, "once", "Once", query)
	if err != nil {
		return nil, err
	}
	also(v, r)
	v.Search = "job, slot or owner"
	state := func(row *slotRow) string { return row.state(k) }
	chosen, choices := narrow(v, r.value, slotStates, state, func(row *slotRow) bool {
		return matches(query, row.Job, row.Slot, row.Outcome.Owner)
	})
	for _, row := range paged(v, chosen, rowsOfPartitions) {
		v.add("slot", row.Key, h.slotCell(row, k))
	}
	v.Data = map[string]any{"Choices": choices}
	return v, nil
}

// key is the page of one key.
func (h *handler) key(ctx context.Context, query url.Values) (*view, error) {
	key := query.Get("key")
	r, err := h.keys.of(key).current(ctx)
	if err != nil {
		return nil, err
	}
	v := newView(h, "key", key, query, r)
	v.Nav = "locks"
	data := map[string]any{"Key": key, "Values": h.values}
	if holder := r.value.Holder; holder != nil {
		row := &lockRow{Holder: holder, State: stateGone}
		if holder.Member != nil {
			k, err := h.snapshots.current(ctx)
			if err != nil {
				return nil, err
			}
			also(v, k)
			s := sessionOf(k.value, holder)
			row.State, row.Host = s.State, s.Host
			data["Session"] = s
		}
		data["Is"] = h.lockCell(row)
		data["Election"] = strings.HasPrefix(key, rows.ElectionKeys)
	}
	v.Data = data
	return v, nil
}

// sessionOf is the holder's session as it was watched, or as it was just read.
func sessionOf(k *snapshot, holder *lease.Holder) *session {
	if k != nil && k.byID[holder.Session] != nil {
		return k.byID[holder.Session]
	}
	return &session{Member: holder.Member, State: stateWatched}
}

// Meta is what people say of the session, in order.
func (s *session) Meta() []string {
	texts := make([]string, 0, len(s.Metadata))
	for name, value := range s.Metadata {
		texts = append(texts, name+"="+value)
	}
	slices.Sort(texts)
	return texts
}
