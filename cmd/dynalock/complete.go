package main

import (
	"context"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// maxCompletions bounds how many keys a shell is offered.
const maxCompletions = 500

// completeKeys completes keys from those that the store has, or, for names, what
// follows prefix in them. limit is how many the command takes, 0: any number.
func (c *cli) completeKeys(prefix string, limit int) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		switch {
		case slices.Contains(os.Args[:len(os.Args)-1], "--"): // cobra adds one of its own, so it cannot say
			return nil, cobra.ShellCompDirectiveDefault // the command that is to run
		case limit > 0 && len(args) >= limit:
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		silent := *c
		silent.err = io.Discard
		var keys []string
		err := silent.during(cmd.Context(), func(ctx context.Context, s *opened) error {
			for h, err := range s.Keys(ctx, prefix+begun) {
				if h == nil {
					return err
				}
				if keys = append(keys, strings.TrimPrefix(h.Key, prefix)); len(keys) == maxCompletions {
					break
				}
			}
			return nil
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return keys, cobra.ShellCompDirectiveNoFileComp
	}
}
