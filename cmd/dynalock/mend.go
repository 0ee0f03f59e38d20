package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"golang.org/x/term"

	"github.com/dynalock/dynalock/lease"
)

func (c *cli) breakCommand() *cobra.Command {
	var token uint64
	var force, yes, unreadable bool
	cmd := &cobra.Command{
		Use: "break KEY", Short: "Take a lock away from its holder", Args: oneKey("break"),
		Long: `break tells the holder of KEY to stop, waits until it has, and frees the lock. The holder's other locks stay.
It takes one to two heartbeats and the holder's margin, and no longer than its TTL and a sixteenth.

With --force it does not wait. Then two may believe in the lock for up to the holder's TTL, and only the token
keeps them apart.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if unreadable {
				return c.breakRow(cmd.Context(), args[0], yes)
			}
			return c.breakLock(cmd.Context(), args[0], token, force, yes)
		},
	}
	cmd.Flags().BoolVar(&unreadable, "unreadable", false, "remove a row that cannot be read, whoever may believe in it")
	cmd.Flags().Uint64Var(&token, "token", 0, "break this acquisition only")
	cmd.Flags().BoolVar(&force, "force", false, "do not wait for the holder to stop")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (c *cli) breakLock(ctx context.Context, key string, token uint64, force, yes bool) error {
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close(context.WithoutCancel(ctx)) }()
	looking, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	h, err := s.Inspect(looking, key)
	switch {
	case err != nil:
		return c.unanswered(err)
	case !h.Held():
		return &exit{statusFailed, fmt.Errorf("break: nobody holds %q", key)}
	case token != 0 && token != h.Token:
		return &exit{statusFailed, fmt.Errorf("break: %q is held under token %d by %s, not under %d", key, h.Token, h.Owner,
			token)}
	}
	if !yes {
		if err := c.ask("break", breakQuestion(h)); err != nil {
			return err
		}
	}
	var options []lease.BreakOption
	if force {
		options = append(options, lease.BreakForce())
	}
	breaking, cancel := context.WithTimeout(ctx, breakTimeout)
	defer cancel()
	began := time.Now()
	if err := s.Break(breaking, h, options...); err != nil {
		return err
	}
	if !c.quiet {
		_, _ = fmt.Fprintf(c.err, "dynalock: %s was taken from %s after %s\n", printable(key), printable(h.Owner),
			short(time.Since(began)))
	}
	return nil
}

// breakTimeout is longer than any holder has to stop.
const breakTimeout = 2 * lease.MaxTTL

func breakQuestion(h *lease.Holder) string {
	return fmt.Sprintf("Break %s, held by %s for %s (token %d)?", printable(h.Key), printable(h.Owner), ago(h.Acquired),
		h.Token)
}

func (c *cli) breakRow(ctx context.Context, key string, yes bool) error {
	if !yes {
		question := fmt.Sprintf("Remove the row of %s, which cannot be read? Somebody may believe in it.", printable(key))
		if err := c.ask("break", question); err != nil {
			return err
		}
	}
	return c.during(ctx, func(ctx context.Context, s *opened) error {
		removed, err := s.BreakRow(ctx, key)
		if err == nil && !c.quiet {
			_, _ = fmt.Fprintf(c.err, "dynalock: the row of %s was removed, it was: %s\n",
				printable(key), printable(string(removed)))
		}
		return err
	})
}

// ask asks a person, who answers y or yes.
func (c *cli) ask(command, question string) error {
	if !term.IsTerminal(int(c.in.Fd())) {
		return usage(fmt.Errorf("%s: not a terminal, so nobody can be asked: add --yes", command))
	}
	_, _ = fmt.Fprintf(c.err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(c.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if !isYes(answer) {
		return &exit{statusFailed, fmt.Errorf("%s: nothing was done", command)}
	}
	return nil
}

func isYes(answer string) bool {
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes"
}

func (c *cli) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "In a command of run: is its lock still held?",
		Long: `check reads the locks that its environment names (DYNALOCK_KEY, DYNALOCK_TOKEN, DYNALOCK_SESSION) and their
session. Its status is 0 if they were held when it looked, 76 if not. What follows may be too late all the same:
only a resource that refuses smaller tokens is safe.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, tokens := linesOf("DYNALOCK_KEY"), linesOf("DYNALOCK_TOKEN")
			if len(keys) == 0 || len(keys) != len(tokens) {
				return usage(errors.New("check: want DYNALOCK_KEY and DYNALOCK_TOKEN as run sets them"))
			}
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				for i, key := range keys {
					if err := check(ctx, s, key, tokens[i], os.Getenv("DYNALOCK_SESSION")); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
}

func linesOf(name string) []string {
	value := os.Getenv(name)
	if value == "" {
		return nil
	}
	return strings.Split(value, "\n")
}

func check(ctx context.Context, s *opened, key, token, session string) error {
	h, err := s.Inspect(ctx, key)
	switch {
	case err != nil:
		return err
	case strconv.FormatUint(h.Token, 10) != token && !isReader(key) || h.Session != session || h.Member == nil:
		return &exit{statusLost, fmt.Errorf("check: %q is not held under token %s any more", key, token)}
	}
	return nil
}

// isReader reports whether a key is that of one who shares a lock. It has the session
// in it, and run acquires it once.
func isReader(key string) bool { return strings.HasPrefix(key, "rw/") && !strings.HasSuffix(key, "/w") }

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			version := "(devel)"
			if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
				version = info.Main.Version
			}
			_, err := fmt.Fprintln(c.out, "dynalock "+version)
			return err
		},
	}
}

func (c *cli) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIRECTORY", Short: "Write the manual pages", Hidden: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage(errors.New("man: want one DIRECTORY"))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil { //nolint:gosec // manuals are for everybody
				return err
			}
			return doc.GenManTree(cmd.Root(), &doc.GenManHeader{Title: "DYNALOCK", Section: "1", Source: "dynalock"}, args[0])
		},
	}
}
