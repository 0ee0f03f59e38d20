package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/lease"
)

// leadFlags are those of lead.
type leadFlags struct {
	runFlags
	value, health, restart string
}

// restartPause is between the end of a command and its next start.
const restartPause = time.Second

func (c *cli) leadCommand() *cobra.Command {
	var f leadFlags
	cmd := &cobra.Command{
		Use:   "lead NAME -- COMMAND [ARGUMENT...]",
		Short: "Run a command while this process leads an election",
		Long: `lead stands as a candidate in the election NAME, and runs the command while it leads. When the
leadership is lost the command is stopped as with run, and is dead before anybody else leads.
Then lead is a candidate again, and starts the command again when it leads again (--restart on-loss).
When the command ends by itself, lead resigns and ends with its status. With --restart always it
leads and starts it again, after a second.

Signals before it leads end lead. Later ones are passed on to the command, and lead ends with it.

The command finds in its environment DYNALOCK_ELECTION, and what run gives: DYNALOCK_KEY, DYNALOCK_TOKEN,
DYNALOCK_ACQ, DYNALOCK_OWNER, DYNALOCK_SESSION, DYNALOCK_TAKEN_OVER and DYNALOCK_STORE.`,
		Example: `  dynalock lead scheduler -- ./scheduler
  dynalock lead scheduler --value "$(hostname):8080" --health 127.0.0.1:9090 -- ./scheduler`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if at := cmd.ArgsLenAtDash(); at != 1 || at == len(args) {
				return usage(errors.New("lead: want NAME -- COMMAND [ARGUMENT...]"))
			}
			return c.lead(cmd.Context(), &f, args[0], args[1:])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.value, "value", "", "what others see of the leader, such as an address")
	flags.StringVar(&f.health, "health", "",
		"serve /healthz at this address: 503 if leadership or store are in trouble; ?leader: 200 on the leader only")
	flags.StringVar(&f.restart, "restart", "on-loss", "start the command again: on-loss, always or never")
	flags.DurationVar(&f.margin, "margin", 0,
		"how long before others may lead a lost leadership is given up (default a tenth of the TTL)")
	flags.DurationVar(&f.killAfter, "kill-after", 0,
		"how long the command has after SIGTERM (default the margin less 200ms, which is the most)")
	return cmd
}

// leading is one call of lead.
type leading struct {
	*cli
	*leadFlags
	name    string
	command []string
	client  *opened
	signals <-chan os.Signal

	// interrupted is the status for the signal that has ended the election, 0: none
	// has. It is written before the election's context ends.
	interrupted int
	// began says that the command was started since, status is that of its last end.
	began  bool
	status int
	lost   error
}

func (c *cli) lead(ctx context.Context, f *leadFlags, name string, command []string) error {
	if !slices.Contains([]string{"on-loss", "always", "never"}, f.restart) {
		return usage(fmt.Errorf("lead: --restart %q: want on-loss, always or never", f.restart))
	}
	if err := f.complete(nil, c.ttl); err != nil {
		return usage(err)
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return &exit{notRunnable(err), fmt.Errorf("lead: %w", err)}
	}
	signals := listen()
	defer signal.Stop(signals)
	w := &waiting{cli: c, keys: []string{name}, began: time.Now()}
	client, err := c.open(ctx, lease.WithMargin(f.margin), lease.WithObserver(w.observe))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(context.WithoutCancel(ctx)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l := &leading{cli: c, leadFlags: f, name: name, command: append([]string{path}, command...), client: client}
	passed, stop := interrupting(signals, func(status int) {
		l.interrupted = status
		cancel()
	})
	defer stop()
	l.signals = passed
	e, err := election.New(client.Client, name, election.WithValue([]byte(f.value)), election.WithLogger(c.logger()))
	if err != nil {
		return err
	}
	if err := serveHealth(ctx, f.health, e); err != nil {
		return usage(err)
	}
	return l.campaign(ctx, cancel, e, w.end)
}

// campaign leads for as long as the flags say.
func (l *leading) campaign(ctx context.Context, cancel context.CancelFunc, e *election.Election, elected func()) error {
	for {
		l.began = false
		err := e.Run(ctx, func(_ context.Context, t *election.Term) error {
			elected()
			err := l.term(t)
			if l.lost = t.Err(); l.lost != nil && l.restart == "never" {
				cancel()
			}
			return err
		})
		switch {
		case l.lost != nil && l.restart == "never":
			return &exit{statusLost, fmt.Errorf("lead: the leadership of %q was lost: %w", l.name, l.lost)}
		case ctx.Err() != nil && !l.began:
			return &exit{status: l.interrupted}
		case err != nil:
			return err
		case l.restart != "always" || ctx.Err() != nil:
			return l.end()
		}
		select {
		case <-time.After(restartPause):
		case <-ctx.Done():
			return l.end()
		}
	}
}

// end is the end of lead that follows that of the command.
func (l *leading) end() error {
	if l.status == 0 {
		return nil
	}
	return &exit{status: l.status}
}

// term runs the command under a term.
func (l *leading) term(t *election.Term) error {
	l.began = true
	if !l.quiet {
		_, _ = fmt.Fprintf(l.err, "dynalock: leads %s (token %d)\n", printable(l.name), t.Token())
	}
	environment := append(os.Environ(),
		"DYNALOCK_ELECTION="+l.name, "DYNALOCK_KEY="+electionKey(l.name), "DYNALOCK_TOKEN="+strconv.FormatUint(t.Token(), 10),
		"DYNALOCK_ACQ="+fmt.Sprint(t.Condition().Value),
		"DYNALOCK_TAKEN_OVER="+strconv.FormatBool(t.TakenOver()), "DYNALOCK_OWNER="+l.client.Owner(),
		"DYNALOCK_SESSION="+l.client.Session(), storeVariable+"="+l.client.spec)
	var err error
	l.status, err = l.supervise(t.Context(), &l.runFlags, l.command, environment, l.signals)
	if err != nil {
		return &exit{notRunnable(err), fmt.Errorf("lead: %w", err)}
	}
	return nil
}

// serveHealth serves the election's health at address, "": nowhere, until ctx ends.
func serveHealth(ctx context.Context, address string, e *election.Election) error {
	if address == "" {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("lead: --health %q: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", e.Health())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(listener) }()
	context.AfterFunc(ctx, func() { _ = server.Close() })
	return nil
}
