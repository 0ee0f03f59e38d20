// Command dynalock runs programs under locks, and shows and mends what is held.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/pgkv"
)

func main() { os.Exit(Main()) }

// Main runs the command and returns its status.
func Main() int {
	c := &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr}
	root := c.root()
	err := root.Execute()
	status := statusOf(err)
	var quiet *exit
	if err != nil && (!errors.As(err, &quiet) || quiet.err != nil) {
		_, _ = fmt.Fprintln(c.err, "dynalock: "+err.Error())
	}
	if errors.Is(err, dynamokv.ErrTableNotFound) || errors.Is(err, pgkv.ErrTableNotFound) {
		_, _ = fmt.Fprintln(c.err, "dynalock: here that is: dynalock table create")
	}
	return status
}

// root makes the command with all that is below it.
func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "dynalock",
		Short: "Run programs under locks, and see and mend what is held",
		Long: `dynalock runs a program while it holds a lock, so that no two of them run at once:

  dynalock run backup -- ./backup.sh

Locks are in DynamoDB, PostgreSQL or an SQLite file (--store, or DYNALOCK_STORE):

  dynamodb:TABLE[?partition=P&shards=N&region=R&endpoint=URL]
  postgres://USER@HOST/DATABASE
  sqlite:PATH

Without a store it is a file of this user's, which excludes processes of this user on this machine.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage(fmt.Errorf("unknown command %q: see dynalock --help", args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.SetOut(c.out)
	root.SetErr(c.err)
	c.flags(root.PersistentFlags())
	root.AddCommand(
		c.runCommand(), c.onceCommand(), c.leadCommand(), c.checkCommand(), c.listCommand(), c.topCommand(),
		c.showCommand(),
		c.sessionsCommand(), c.whoCommand(), c.watchCommand(), c.stepDownCommand(),
		c.breakCommand(), c.sweepCommand(), c.kvCommand(), c.poolCommand(), c.webCommand(), c.doctorCommand(),
		c.tableCommand(), c.versionCommand(), c.manCommand(),
	)
	for _, completion := range []struct {
		prefix   string
		limit    int
		commands []string
	}{
		{"", 0, []string{"run"}},
		{"", 1, []string{"ls", "top", "show", "break", "sweep"}},
		{electionKey(""), 1, []string{"who", "watch", "stepdown", "lead"}},
	} {
		for _, name := range completion.commands {
			if cmd, _, err := root.Find([]string{name}); err == nil {
				cmd.ValidArgsFunction = c.completeKeys(completion.prefix, completion.limit)
			}
		}
	}
	return root
}
