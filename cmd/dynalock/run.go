package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// reserve is how long before others may have the lock the child is dead.
const reserve = 200 * time.Millisecond

// runFlags are those of run.
type runFlags struct {
	try                bool
	shared, exclusive  bool
	wait, margin       time.Duration
	killAfter          time.Duration
	maxHold, minHold   time.Duration
	onLost, report     string
	limit, notAcquired int
}

func (c *cli) runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run KEY... -- COMMAND [ARGUMENT...]",
		Short: "Run a command under a lock",
		Long: `run waits for the lock of each KEY, runs the command, and gives the locks back.

When a lock is lost, the command's process group gets SIGTERM, and SIGKILL in time: the command is dead before
anybody else may have the lock, whatever the network does. Exceptions: this process is stopped (SIGSTOP), or
somebody breaks the lock by force. What the command has started in process groups of its own goes on. On a
terminal only the command itself is sure to be dead, not what it has started.

The status is the command's own, 128 and the signal that ended it, 75 if the lock was not had (-E changes it),
76 if it was lost while the command ran, 64 for bad arguments, 69 if the store is out of reach, 77 if it refuses,
78 if its table is missing or unfit, 126 and 127 if the command cannot be run.

The command finds in its environment DYNALOCK_KEY, DYNALOCK_TOKEN (a number that grows with each holder: let what
you protect refuse smaller ones), DYNALOCK_OWNER, DYNALOCK_SESSION, DYNALOCK_TAKEN_OVER and DYNALOCK_STORE. With
several keys, the first two have a line for each.`,
		Example: `  dynalock run backup -- ./backup.sh
  dynalock run --try report -- ./report.sh       # 75 if somebody else is at it
  dynalock run --wait 1m db/a db/b -- ./merge.sh
  dynalock run --limit 3 crawl -- ./crawl.sh     # three at a time
  dynalock run --shared site -- ./serve.sh       # beside others, but not beside:
  dynalock run --exclusive site -- ./deploy.sh`,
		RunE: func(cmd *cobra.Command, args []string) error {
			at := cmd.ArgsLenAtDash()
			if at < 1 || at == len(args) {
				return usage(errors.New("run: want KEY... -- COMMAND [ARGUMENT...]"))
			}
			return c.run(cmd.Context(), &f, args[:at], args[at:])
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.try, "try", "n", false, "do not wait for the lock")
	flags.DurationVarP(&f.wait, "wait", "w", 0, "wait for the lock for so long (default for ever)")
	flags.DurationVar(&f.margin, "margin", 0,
		"how long before others may have it a lost lock is given up (default a tenth of the TTL)")
	flags.DurationVar(&f.killAfter, "kill-after", 0,
		"how long the command has after SIGTERM (default the margin less 200ms, which is the most)")
	flags.StringVar(&f.onLost, "on-lost", "term",
		"when the lock is lost: term, kill or warn; warn lets the command go on beside others")
	flags.DurationVar(&f.maxHold, "max-hold", 0, "give the lock up after so long")
	flags.DurationVar(&f.minHold, "min-hold", 0, "keep the lock for at least so long, however quick the command is")
	flags.IntVar(&f.limit, "limit", 0, "let so many hold KEY at a time")
	flags.BoolVar(&f.shared, "shared", false, "hold KEY beside others who share it")
	flags.BoolVar(&f.exclusive, "exclusive", false,
		"hold KEY while nobody shares it; who waits for that keeps new ones out")
	flags.IntVarP(&f.notAcquired, "status", "E", statusNotAcquired, "the status if the lock was not had")
	flags.StringVar(&f.report, "report", "", "write what happened as JSON to a file, or to fd:N")
	return cmd
}

// complete refuses flags that make no sense, before anything is done, and sets
// those that were not given.
func (f *runFlags) complete(keys []string, ttl time.Duration) error {
	if f.onLost == "" {
		f.onLost = "term"
	}
	if f.margin == 0 {
		f.margin = max(ttl/10, 500*time.Millisecond)
	}
	most := f.margin - reserve
	switch {
	case f.try && f.wait != 0:
		return errors.New("run: --try and --wait contradict each other")
	case f.wait < 0:
		return fmt.Errorf("run: --wait %v: want a time to wait", f.wait)
	case !slices.Contains([]string{"term", "kill", "warn"}, f.onLost):
		return fmt.Errorf("run: --on-lost %q: want term, kill or warn", f.onLost)
	case f.killAfter < 0 || f.killAfter > most:
		return fmt.Errorf("run: --kill-after %v: want at most %v, the margin less %v", f.killAfter, most, reserve)
	case f.notAcquired < 0 || f.notAcquired > 255:
		return fmt.Errorf("run: --status %d: want 0 to 255", f.notAcquired)
	case f.limit < 0 || f.limit > 0 && len(keys) > 1:
		return fmt.Errorf("run: --limit %d of %d keys: want a limit of 1 or more, and one key", f.limit, len(keys))
	case f.shared && f.exclusive:
		return errors.New("run: --shared and --exclusive contradict each other")
	case (f.shared || f.exclusive) && (f.limit > 0 || len(keys) > 1):
		return fmt.Errorf("run: --shared or --exclusive of %d keys, --limit %d: want one key, and no limit",
			len(keys), f.limit)
	}
	if f.killAfter == 0 {
		f.killAfter = most
	}
	return nil
}

// held is what run holds: one lease or several.
type held struct {
	leases  []*lease.Lease
	epoch   uint64 // of one that is shared, 0: it is not
	ctx     context.Context
	release func(ctx context.Context) error
}

// report is what --report writes.
type report struct {
	Key     []string `json:"key"`
	Token   []uint64 `json:"token,omitempty"`
	Outcome string   `json:"outcome"` // ran, lost, not acquired, failed
	Reason  string   `json:"reason,omitempty"`
	Waited  int64    `json:"waited_ms"`
	Held    int64    `json:"held_ms"`
	Exit    int      `json:"exit"`
}

func (c *cli) run(ctx context.Context, f *runFlags, keys, command []string) error {
	if err := f.complete(keys, c.ttl); err != nil {
		return usage(err)
	}
	to, err := openReport(f.report)
	if err != nil {
		return usage(err)
	}
	r := report{Key: keys, Outcome: "failed"}
	path, err := exec.LookPath(command[0])
	if err != nil {
		err = &exit{notRunnable(err), fmt.Errorf("run: %w", err)}
	} else {
		err = c.runUnder(ctx, f, keys, append([]string{path}, command...), &r)
	}
	r.Exit = statusOf(err)
	if to != nil {
		_ = to.Truncate(0) // what was in a file; a pipe has nothing
		if encoded := json.NewEncoder(to).Encode(r); encoded != nil {
			_, _ = fmt.Fprintf(c.err, "dynalock: run: the report: %v\n", encoded)
		}
		_ = to.Close()
	}
	return err
}

// notRunnable is the status where a command cannot be run.
func notRunnable(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return statusNotFound
	}
	return statusNotRunnable
}

// openReport opens where the report goes, nil: nowhere.
func openReport(where string) (*os.File, error) {
	if where == "" {
		return nil, nil
	}
	if number, ok := strings.CutPrefix(where, "fd:"); ok {
		fd, err := strconv.ParseUint(number, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("run: --report %q: want fd:N", where)
		}
		f := os.NewFile(uintptr(fd), where)
		if _, err := f.Stat(); err != nil {
			return nil, fmt.Errorf("run: --report %q: %w", where, err)
		}
		closeOnExec(int(fd))
		return f, nil
	}
	return os.OpenFile(where, os.O_WRONLY|os.O_CREATE, 0o600) // others may wait for the lock with the same
}

// runUnder gets the locks and runs command under them. command begins with the
// path of the program.
func (c *cli) runUnder(ctx context.Context, f *runFlags, keys, command []string, r *report) (err error) {
	signals := listen()
	defer signal.Stop(signals)
	w := &waiting{cli: c, keys: keys, began: time.Now()}
	client, err := c.open(ctx, lease.WithMargin(f.margin), lease.WithObserver(w.observe))
	if err != nil {
		return err
	}
	defer func() {
		closing, interrupted, stop := ending(context.WithoutCancel(ctx), signals) // a min-hold may take long
		defer stop()
		if failed := client.Close(closing); failed != nil && !c.quiet {
			_, _ = fmt.Fprintf(c.err, "dynalock: %v\n", failed)
		}
		if status := interrupted(); status != 0 && err == nil {
			err = &exit{status: status}
		}
	}()
	h, err := c.acquire(ctx, f, client, keys, signals)
	w.end()
	r.Waited = time.Since(w.began).Milliseconds()
	if err != nil {
		r.Outcome = "not acquired"
		return notAcquired(f, err)
	}
	for _, l := range h.leases {
		r.Token = append(r.Token, h.token(l))
	}
	began := time.Now()
	status, err := c.supervise(h.ctx, f, command, append(os.Environ(), h.environment(client)...), signals)
	r.Held = time.Since(began).Milliseconds()
	lost := h.lost()
	released := h.release(context.WithoutCancel(ctx))
	switch {
	case err != nil:
		r.Outcome = "failed"
		return &exit{notRunnable(err), fmt.Errorf("run: %w", err)}
	case lost != nil:
		r.Outcome, r.Reason = "lost", string(lost.Reason)
		return &exit{statusLost, fmt.Errorf("run: %s was lost (%s) while the command ran", strings.Join(keys, ", "),
			lost.Reason)}
	case released != nil && !c.quiet:
		_, _ = fmt.Fprintf(c.err, "dynalock: %v\n", released)
	}
	r.Outcome = "ran"
	if status != 0 {
		return &exit{status: status}
	}
	return nil
}

// notAcquired is the end of a run that did not get its locks.
func notAcquired(f *runFlags, err error) error {
	var own *exit
	if errors.As(err, &own) {
		return err
	}
	if status := statusOf(err); status != statusNotAcquired {
		return err
	}
	return &exit{f.notAcquired, err}
}

// listen returns the signals that come from now on, but for those that whoever
// started this process wants ignored, as nohup does.
func listen() chan os.Signal {
	signals := make(chan os.Signal, 16)
	for _, s := range passedOn {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	return signals
}

// ending returns a context that a signal ends, and the status for that signal, 0:
// none came.
func ending(ctx context.Context, signals <-chan os.Signal) (_ context.Context, status func() int, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var got atomic.Int64
	go func() {
		for {
			select {
			case s := <-signals:
				if number, ok := s.(syscall.Signal); ok && ends(number) {
					got.Store(int64(statusSignal + int(number)))
					cancel()
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() int { return int(got.Load()) }, cancel
}

// acquire gets all locks, unless a signal comes before.
func (c *cli) acquire(ctx context.Context, f *runFlags, client *opened, keys []string,
	signals <-chan os.Signal) (*held, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.wait > 0 {
		ctx, cancel = context.WithTimeout(ctx, f.wait)
		defer cancel()
	}
	type got struct {
		held *held
		err  error
	}
	done := make(chan got, 1)
	go func() {
		h, err := f.take(ctx, client, keys)
		done <- got{h, err}
	}()
	for {
		select {
		case g := <-done:
			return g.held, g.err
		case s := <-signals:
			number, ok := s.(syscall.Signal)
			if !ok || !ends(number) {
				continue
			}
			cancel()
			if g := <-done; g.err == nil {
				_ = g.held.release(context.WithoutCancel(ctx))
			}
			return nil, &exit{status: statusSignal + int(number)}
		}
	}
}

// take gets all locks as the flags say.
func (f *runFlags) take(ctx context.Context, client *opened, keys []string) (*held, error) {
	var options []lease.AcquireOption
	if f.maxHold != 0 {
		options = append(options, lease.WithMaxHold(f.maxHold))
	}
	if f.minHold != 0 {
		options = append(options, lease.WithMinHold(f.minHold))
	}
	if f.limit > 0 {
		s := lock.NewSemaphore(client.Client, keys[0], f.limit, options...)
		return one(pick(f.try, s.TryAcquire, s.Acquire)(ctx))
	}
	if f.shared {
		m := lock.NewRWMutex(client.Client, keys[0], options...)
		l, err := pick(f.try, m.TryRLock, m.RLock)(ctx)
		if err != nil {
			return nil, err
		}
		return &held{leases: []*lease.Lease{l.Lease()}, epoch: l.Epoch(), ctx: l.Context(), release: l.Release}, nil
	}
	if f.exclusive {
		m := lock.NewRWMutex(client.Client, keys[0], options...)
		return one(pick(f.try, m.TryLock, m.Lock)(ctx))
	}
	if len(keys) == 1 {
		m := lock.NewMutex(client.Client, keys[0], options...)
		return one(pick(f.try, m.TryLock, m.Lock)(ctx))
	}
	m := lock.NewMulti(client.Client, keys, options...)
	l, err := pick(f.try, m.TryLock, m.Lock)(ctx)
	if err != nil {
		return nil, err
	}
	h := &held{ctx: l.Context(), release: l.Release}
	for _, key := range m.Names() {
		h.leases = append(h.leases, l.Lease(key))
	}
	return h, nil
}

func pick[T any](first bool, a, b T) T {
	if first {
		return a
	}
	return b
}

func one(l *lease.Lease, err error) (*held, error) {
	if err != nil {
		return nil, err
	}
	return &held{leases: []*lease.Lease{l}, ctx: l.Context(), release: l.Release}, nil
}

// lost is how the first lease that was lost was lost, nil if none was.
func (h *held) lost() *lease.LostError {
	for _, l := range h.leases {
		var lost *lease.LostError
		if errors.As(l.Err(), &lost) {
			return lost
		}
	}
	return nil
}

// token is what a resource compares: of a lock that is shared the epoch.
func (h *held) token(l *lease.Lease) uint64 {
	if h.epoch != 0 {
		return h.epoch
	}
	return l.Token()
}

// environment is what the command learns of its locks.
func (h *held) environment(client *opened) []string {
	var keys, tokens, acquisitions, taken []string
	for _, l := range h.leases {
		keys = append(keys, l.Key())
		tokens = append(tokens, strconv.FormatUint(h.token(l), 10))
		acquisitions = append(acquisitions, fmt.Sprint(l.Condition().Value))
		taken = append(taken, strconv.FormatBool(l.TakenOver()))
	}
	lines := func(values []string) string { return strings.Join(values, "\n") }
	return []string{
		"DYNALOCK_KEY=" + lines(keys), "DYNALOCK_TOKEN=" + lines(tokens), "DYNALOCK_ACQ=" + lines(acquisitions),
		"DYNALOCK_TAKEN_OVER=" + lines(taken),
		"DYNALOCK_OWNER=" + client.Owner(), "DYNALOCK_SESSION=" + client.Session(), storeVariable + "=" + client.spec,
	}
}
