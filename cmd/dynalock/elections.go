package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/election"
)

// electionKey is that of an election's lease.
func electionKey(name string) string { return "election/" + name }

// leaderRow is a state of an election, for JSON.
type leaderRow struct {
	Election string     `json:"election"`
	Vacant   bool       `json:"vacant"`
	Owner    string     `json:"owner,omitempty"`
	Host     string     `json:"host,omitempty"`
	PID      int        `json:"pid,omitempty"`
	Value    string     `json:"value,omitempty"`
	Token    uint64     `json:"token,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	Session  string     `json:"session,omitempty"`
}

func leaderRowOf(name string, l *election.Leader) leaderRow {
	r := leaderRow{Election: name, Vacant: l.Vacant(), Token: l.Token}
	if !l.Vacant() {
		r.Owner, r.Host, r.PID, r.Session = l.Member.Owner, l.Member.Host, l.Member.PID, l.Member.Session
		r.Value, r.Since = string(l.Value), &l.Since
	}
	return r
}

func oneName(command string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(fmt.Errorf("%s: want one NAME of an election", command))
		}
		return nil
	}
}

func (c *cli) whoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "who NAME", Short: "Show who leads an election", Args: oneName("who"),
		Long: `who shows the leader of the election NAME. The status is 1 if nobody leads. A leader that has died is
shown until a candidate has found that out.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				e, err := election.New(s.Client, args[0], election.WithLogger(c.logger()))
				if err != nil {
					return err
				}
				leader, err := e.Leader(ctx)
				if errors.Is(err, election.ErrNoLeader) {
					return &exit{statusFailed, fmt.Errorf("who: nobody leads %q", args[0])}
				}
				if err != nil {
					return err
				}
				r := leaderRowOf(args[0], leader)
				if c.output == "json" || c.output == "jsonl" {
					return c.encode(r)
				}
				l := c.list(column{name: "OWNER"}, column{name: "VALUE"}, column{name: "TOKEN"}, column{name: "LEADS FOR"},
					column{name: "HOST"}, column{name: "PID"}, column{name: "SESSION", wide: true})
				err = l.add(r.Owner, map[string]string{
					"OWNER": r.Owner, "VALUE": r.Value, "TOKEN": strconv.FormatUint(r.Token, 10), "LEADS FOR": ago(leader.Since),
					"HOST": r.Host, "PID": strconv.Itoa(r.PID), "SESSION": r.Session,
				}, r)
				return errors.Join(err, l.end())
			})
		},
	}
}

func (c *cli) watchCommand() *cobra.Command {
	return &cobra.Command{
		Use: "watch NAME", Short: "Print who leads an election, and then each change, as JSON lines", Args: oneName("watch"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.untilStopped(cmd.Context(), func(ctx context.Context, s *opened) error {
				return c.watchLeader(ctx, s, args[0])
			})
		},
	}
}

func (c *cli) watchLeader(ctx context.Context, s *opened, name string) error {
	e, err := election.New(s.Client, name, election.WithLogger(c.logger()))
	if err != nil {
		return err
	}
	encoder := c.lines()
	for leader, err := range e.Observe(ctx) {
		switch {
		case ctx.Err() != nil:
			return nil // interrupted, as it is meant to end
		case err != nil && statusOf(err) == statusUnavailable:
			_, _ = fmt.Fprintln(c.err, "dynalock: "+err.Error())
		case err != nil:
			return err
		default:
			if err := encoder.Encode(leaderRowOf(name, leader)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *cli) stepDownCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "stepdown NAME", Short: "End the term of an election's leader", Args: oneName("stepdown"),
		Long: `stepdown tells the leader of the election NAME to stop, and waits until it has. Then another
candidate leads, or the same one if there is no other. It takes one to two heartbeats and the leader's margin.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.breakLock(cmd.Context(), electionKey(args[0]), 0, false, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
