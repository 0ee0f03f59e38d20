package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// sweptRow is what a sweep has done, for JSON.
type sweptRow struct {
	Sessions   int `json:"sessions"`
	Keys       int `json:"keys"`
	Kept       int `json:"kept"`
	Delayed    int `json:"delayed"`
	Unreadable int `json:"unreadable"`
}

func (c *cli) sweepCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "sweep [PREFIX]", Short: "Remove what crashed processes have left", Args: onePrefix("sweep"),
		Long: `sweep deletes the sessions of processes that have died, and frees those of their locks whose keys
begin with PREFIX. It never touches what belongs to a live process, and may run at any time.
Locks that somebody asks for need no sweep.

It watches every session for its next heartbeat, or for its TTL and a sixteenth, so it takes as long. --timeout does not
end it, a signal does. What keeps a value and what cannot be read is left, and counted.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := strings.Join(args, "")
			if !yes {
				if err := c.ask("sweep", fmt.Sprintf("Remove what crashed processes have left of %q?", prefix)); err != nil {
					return err
				}
			}
			return c.untilStopped(cmd.Context(), func(ctx context.Context, s *opened) error {
				return c.sweep(ctx, s, prefix)
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (c *cli) sweep(ctx context.Context, s *opened, prefix string) error {
	swept, err := s.Sweep(ctx, prefix)
	if c.output == "json" || c.output == "jsonl" {
		return errors.Join(err, c.encode(sweptRow(swept)))
	}
	if !c.quiet {
		_, _ = fmt.Fprintf(c.out, "%d sessions of the dead deleted, %d of their locks freed\n", swept.Sessions, swept.Keys)
		for _, left := range []struct {
			keys int
			why  string
		}{{swept.Kept, "keep a value"}, {swept.Delayed, "wait for their lock-delay"}, {swept.Unreadable, "cannot be read"}} {
			if left.keys > 0 {
				_, _ = fmt.Fprintf(c.out, "%d left: they %s\n", left.keys, left.why)
			}
		}
	}
	return err
}
