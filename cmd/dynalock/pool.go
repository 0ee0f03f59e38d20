package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/pool"
)

// partitionRow is a partition for JSON.
type partitionRow struct {
	Pool       string     `json:"pool"`
	Partition  string     `json:"partition"`
	State      string     `json:"state"` // held, idle, paused, removed, done, failed, unreadable
	Owner      string     `json:"owner,omitempty"`
	Token      uint64     `json:"token,omitempty"`
	Session    string     `json:"session,omitempty"`
	Weight     int        `json:"weight,omitempty"`
	Checkpoint *time.Time `json:"checkpoint_at,omitempty"`
	Bytes      int        `json:"checkpoint_bytes,omitempty"`
	Failures   int        `json:"failures,omitempty"`
	Error      string     `json:"error,omitempty"` // of the last attempt, or why it is unreadable
}

func partitionRowOf(name string, p *pool.Partition) partitionRow {
	r := partitionRow{
		Pool: name, Partition: p.Name, State: "idle", Owner: p.Owner, Token: p.Token, Session: p.Session, Weight: p.Weight,
		Bytes: len(p.Checkpoint), Failures: p.Failures, Error: p.LastError,
	}
	switch {
	case p.Done:
		r.State = "done"
	case p.Failed:
		r.State = "failed"
	case p.Removed:
		r.State = "removed"
	case p.Paused:
		r.State = "paused"
	case p.Session != "":
		r.State = "held"
	}
	if !p.CheckpointAt.IsZero() {
		r.Checkpoint = &p.CheckpointAt
	}
	return r
}

func (c *cli) poolCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "pool", Short: "Show pools, and change their partitions", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	group.AddCommand(c.poolListCommand())
	for _, sub := range []struct {
		use, short string
		do         func(p *pool.Pool, ctx context.Context, partitions ...string) error
	}{
		{"add", "Add partitions", (*pool.Pool).Add},
		{"rm", "Remove partitions with their checkpoints, once nobody works on them", (*pool.Pool).Remove},
		{"pause", "Make partitions lie idle, and wait until nobody works on them", (*pool.Pool).Pause},
		{"resume", "End a pause", (*pool.Pool).Resume},
		{"reopen", "Make partitions that are done or failed such that are to be worked on again", (*pool.Pool).Reopen},
	} {
		group.AddCommand(&cobra.Command{
			Use: sub.use + " NAME PARTITION...", Short: sub.short,
			Args: func(_ *cobra.Command, args []string) error {
				if len(args) < 2 {
					return usage(fmt.Errorf("pool %s: want NAME and one PARTITION or more", sub.use))
				}
				return nil
			},
			RunE: func(cmd *cobra.Command, args []string) error {
				return c.withPool(cmd.Context(), args[0], func(ctx context.Context, p *pool.Pool) error {
					return sub.do(p, ctx, args[1:]...)
				})
			},
		})
	}
	group.AddCommand(c.poolWeightCommand())
	return group
}

func (c *cli) poolWeightCommand() *cobra.Command {
	return &cobra.Command{
		Use: "weight NAME WEIGHT PARTITION...", Short: "Set what partitions count for in balancing",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 3 {
				return usage(errors.New("pool weight: want NAME, WEIGHT and one PARTITION or more"))
			}
			if _, err := strconv.Atoi(args[1]); err != nil {
				return usage(fmt.Errorf("pool weight: %q: want a number of 1 to %d", args[1], pool.MaxWeight))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			weight, err := strconv.Atoi(args[1])
			if err != nil {
				return err
			}
			return c.withPool(cmd.Context(), args[0], func(ctx context.Context, p *pool.Pool) error {
				return p.SetWeight(ctx, weight, args[2:]...)
			})
		},
	}
}

// withPool calls do with a pool of which this process is no member, until a signal
// comes: it may have to wait until a partition is drained.
func (c *cli) withPool(ctx context.Context, name string, do func(context.Context, *pool.Pool) error) error {
	return c.untilStopped(ctx, func(ctx context.Context, s *opened) error {
		p, err := pool.New(s.Client, name, nil)
		if err != nil {
			return err
		}
		return do(ctx, p)
	})
}

func (c *cli) poolListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls [NAME]", Short: "List the partitions of a pool, or the pools", Args: onePrefix("pool ls"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				if len(args) == 0 {
					return c.listPools(ctx, s)
				}
				return c.listPartitions(ctx, s, args[0])
			})
		},
	}
}

func (c *cli) listPartitions(ctx context.Context, s *opened, name string) error {
	p, err := pool.New(s.Client, name, nil)
	if err != nil {
		return err
	}
	l := c.list(column{name: "PARTITION"}, column{name: "STATE"}, column{name: "OWNER"}, column{name: "WEIGHT"},
		column{name: "CHECKPOINT"}, column{name: "BYTES"},
		column{name: "FAILURES"}, column{name: "ERROR"}, column{name: "TOKEN", wide: true},
		column{name: "SESSION", wide: true})
	for found, err := range p.Partitions(ctx) {
		if found == nil {
			return err
		}
		row := partitionRowOf(name, found)
		cells := map[string]string{
			"PARTITION": row.Partition, "STATE": row.State, "OWNER": row.Owner, "WEIGHT": strconv.Itoa(row.Weight),
			"CHECKPOINT": ago(found.CheckpointAt), "BYTES": strconv.Itoa(row.Bytes),
			"FAILURES": strconv.Itoa(row.Failures), "ERROR": row.Error,
			"TOKEN": strconv.FormatUint(row.Token, 10), "SESSION": row.Session,
		}
		if err != nil {
			row = partitionRow{Pool: name, Partition: found.Name, State: "unreadable", Error: err.Error()}
			cells = map[string]string{"PARTITION": row.Partition, "STATE": row.State}
		}
		if err := l.add(row.Partition, cells, row); err != nil {
			return err
		}
	}
	return l.end()
}

// poolRow is a pool for JSON.
type poolRow struct {
	Pool       string `json:"pool"`
	Partitions int    `json:"partitions"`
	Held       int    `json:"held"`
}

// listPools lists the pools that have partitions.
func (c *cli) listPools(ctx context.Context, s *opened) error {
	const prefix = "pool/"
	var pools []*poolRow
	for h, err := range s.Keys(ctx, prefix) {
		if err != nil && !errors.Is(err, kv.ErrFormat) || h == nil {
			return err
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(h.Key, prefix), "/")
		if len(pools) == 0 || pools[len(pools)-1].Pool != name { // the keys of one follow one another
			pools = append(pools, &poolRow{Pool: name})
		}
		last := pools[len(pools)-1]
		last.Partitions++
		if err == nil && h.Held() {
			last.Held++
		}
	}
	l := c.list(column{name: "POOL"}, column{name: "PARTITIONS"}, column{name: "HELD"})
	for _, p := range pools {
		cells := map[string]string{"POOL": p.Pool, "PARTITIONS": strconv.Itoa(p.Partitions), "HELD": strconv.Itoa(p.Held)}
		if err := l.add(p.Pool, cells, p); err != nil {
			return err
		}
	}
	return l.end()
}
