package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// onceFlags are those of once.
type onceFlags struct {
	slot                        string
	every, retention            time.Duration
	wait, retryFailed, takeOver bool
}

func (c *cli) onceCommand() *cobra.Command {
	var f onceFlags
	cmd := &cobra.Command{
		Use:   "once JOB -- COMMAND [ARGUMENT...]",
		Short: "Run a command once per slot, on one of many machines",
		Long: `once runs the command if it has not run for the slot before, on whatever machine. It is for cron: every machine
starts it, and one of them does the work.

A slot is a name (--slot), or the period that it is now (--every). What became of it is kept (--retention). A slot
whose command failed stays failed, unless --retry-failed. One that was interrupted, by a signal or a crash, stays
abandoned, unless --take-over. The status is 0 if the slot is done, by this call or an earlier one, 75 if it runs
elsewhere, the command's own, or 1 where the slot had failed or was abandoned before.

The command's environment has what that of run has, and DYNALOCK_JOB, DYNALOCK_SLOT and DYNALOCK_ATTEMPT, which is 1
when the slot runs for the first time.`,
		Example: `  dynalock once report --every 24h -- ./report.sh
  dynalock once import --slot "$BATCH" --take-over -- ./import.sh`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if at := cmd.ArgsLenAtDash(); at != 1 || at == len(args) {
				return usage(errors.New("once: want JOB -- COMMAND [ARGUMENT...]"))
			}
			return c.once(cmd.Context(), &f, args[0], args[1:])
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.slot, "slot", "", "the slot's name")
	flags.DurationVar(&f.every, "every", 0, "a slot per period, such as 1h: that of now, by this machine's clock in UTC")
	flags.DurationVar(&f.retention, "retention", lock.DefaultRetention, "how long it is kept what became of a slot")
	flags.BoolVar(&f.wait, "wait", false, "wait while the slot runs elsewhere")
	flags.BoolVar(&f.retryFailed, "retry-failed", false, "run a slot again whose command failed")
	flags.BoolVar(&f.takeOver, "take-over", false, "run a slot again that was interrupted")
	cmd.AddCommand(c.onceListCommand(), c.onceShowCommand(), c.onceForgetCommand())
	return cmd
}

// name is the slot that the flags name.
func (f *onceFlags) name() (string, error) {
	switch {
	case f.slot != "" && f.every != 0, f.slot == "" && f.every == 0:
		return "", errors.New("once: want either --slot or --every")
	case f.slot != "":
		return f.slot, nil
	case f.every < time.Second:
		return "", fmt.Errorf("once: --every %v: want at least a second", f.every)
	}
	return lock.Slot(time.Now(), f.every), nil
}

func (c *cli) once(ctx context.Context, f *onceFlags, job string, command []string) error {
	slot, err := f.name()
	if err != nil {
		return usage(err)
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return &exit{notRunnable(err), fmt.Errorf("once: %w", err)}
	}
	var run runFlags
	if err := run.complete(nil, c.ttl); err != nil {
		return usage(err)
	}
	signals := listen()
	defer signal.Stop(signals)
	client, err := c.open(ctx, lease.WithMargin(run.margin))
	if err != nil {
		return err
	}
	defer func() { _ = client.Close(context.WithoutCancel(ctx)) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	interrupted := 0
	passed, stop := interrupting(signals, func(status int) {
		interrupted = status
		cancel()
	})
	defer stop()
	status, began := 0, false
	options := f.options([]lock.OnceOption{lock.WithRetention(f.retention)})
	once := lock.NewOnce(client.Client, job, options...)
	_, err = once.Do(ctx, slot, func(ctx context.Context, l *lease.Lease) error {
		began = true
		h, _ := one(l, nil)
		environment := append(os.Environ(), h.environment(client)...)
		environment = append(environment, "DYNALOCK_JOB="+job, "DYNALOCK_SLOT="+slot)
		if found, err := once.Outcome(ctx, slot); err == nil {
			environment = append(environment, "DYNALOCK_ATTEMPT="+strconv.Itoa(found.Attempt))
		}
		var err error
		status, err = c.supervise(l.Context(), &run, append([]string{path}, command...), environment, passed)
		if err == nil && status != 0 {
			err = errors.New("the command ended with status " + strconv.Itoa(status))
		}
		return err
	})
	switch {
	case errors.Is(err, lease.ErrLost):
		return &exit{statusLost, err}
	case began && status != 0:
		return &exit{status: status}
	case !began && ctx.Err() != nil:
		stop() // interrupted is written before ctx ends
		return &exit{status: interrupted}
	}
	return err
}

// options are those of lock.Once.
func (f *onceFlags) options(options []lock.OnceOption) []lock.OnceOption {
	if f.wait {
		options = append(options, lock.Wait())
	}
	if f.retryFailed {
		options = append(options, lock.RetryFailed())
	}
	if f.takeOver {
		options = append(options, lock.TakeOver())
	}
	return options
}

// interrupting passes signals on, and calls interrupt when one of them ends the
// command: a job that was stopped is not one that failed.
func interrupting(signals <-chan os.Signal, interrupt func(status int)) (passed <-chan os.Signal, stop func()) {
	out, stopped := make(chan os.Signal, 16), make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				if number, ok := s.(syscall.Signal); ok && ends(number) {
					interrupt(statusSignal + int(number))
				}
				out <- s
			case <-stopped:
				return
			}
		}
	}()
	return out, sync.OnceFunc(func() { close(stopped) })
}

func (c *cli) onceListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls [JOB]", Short: "List the slots of a job, or of all", Args: onePrefix("once ls"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				l := c.list(column{name: "JOB"}, column{name: "SLOT"}, column{name: "STATE"}, column{name: "OWNER"},
					column{name: "ATTEMPT"}, column{name: "STARTED"}, column{name: "ENDED"}, column{name: "ERROR", wide: true})
				for found, err := range lock.Slots(ctx, s.Client) {
					if found == nil {
						return err
					}
					if len(args) == 1 && found.Job != args[0] {
						continue
					}
					if err := l.add(found.Job+"/"+found.Slot, slotCells(found, err),
						slotRow{found.Job, found.Slot, found.Session, found.Outcome}); err != nil {
						return err
					}
				}
				return l.end()
			})
		},
	}
}

// slotRow is a slot for JSON.
type slotRow struct {
	Job     string `json:"job"`
	Slot    string `json:"slot"`
	Session string `json:"session,omitempty"`
	lock.Outcome
}

// slotCells are those of a slot. err is why its row cannot be read.
func slotCells(found *lock.FoundSlot, err error) map[string]string {
	cells := map[string]string{"JOB": found.Job, "SLOT": found.Slot, "STATE": "unreadable"}
	if err != nil {
		cells["ERROR"] = err.Error()
		return cells
	}
	o := found.Outcome
	maps.Copy(cells, map[string]string{
		"STATE": string(o.State), "OWNER": o.Owner, "ATTEMPT": strconv.Itoa(o.Attempt),
		"STARTED": stamp(o.Started), "ENDED": stamp(o.Ended), "ERROR": o.Error,
	})
	return cells
}

func (c *cli) onceShowCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show JOB SLOT", Short: "Show what became of a slot", Args: jobAndSlot("show"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				found, err := lock.NewOnce(s.Client, args[0]).Outcome(ctx, args[1])
				if err != nil {
					return err
				}
				state := string(found.State)
				if state == "" {
					state = "never started"
				}
				l := c.list(column{name: "STATE"}, column{name: "OWNER"}, column{name: "ATTEMPT"}, column{name: "STARTED"},
					column{name: "ENDED"}, column{name: "ERROR"})
				err = l.add(state, map[string]string{
					"STATE": state, "OWNER": found.Owner, "ATTEMPT": strconv.Itoa(found.Attempt), "STARTED": stamp(found.Started),
					"ENDED": stamp(found.Ended), "ERROR": found.Error,
				}, found)
				return errors.Join(err, l.end())
			})
		},
	}
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func (c *cli) onceForgetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "forget JOB SLOT", Short: "Make a slot one that never ran, so that it may run again", Args: jobAndSlot("forget"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				return lock.NewOnce(s.Client, args[0]).Forget(ctx, args[1])
			})
		},
	}
}

func jobAndSlot(command string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 2 {
			return usage(fmt.Errorf("once %s: want JOB and SLOT", command))
		}
		return nil
	}
}
