package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// lockRow is a lock for -o json.
type lockRow struct {
	Key      string            `json:"key"`
	State    string            `json:"state"` // live, dead, reserved, kept, unreadable; watched: overdue, expired
	Owner    string            `json:"owner,omitempty"`
	Token    uint64            `json:"token,omitempty"`
	Session  string            `json:"session,omitempty"`
	Acquired *time.Time        `json:"acquired,omitempty"`
	LastBeat *time.Time        `json:"last_beat,omitempty"`
	TTL      string            `json:"ttl,omitempty"`
	Silent   string            `json:"silent,omitempty"` // watched: no heartbeat was seen for so long
	Host     string            `json:"host,omitempty"`
	PID      int               `json:"pid,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Value    []byte            `json:"value,omitempty"`
	Waiting  []string          `json:"waiting,omitempty"` // owners, the first in the queue first
	Error    string            `json:"error,omitempty"`
}

// describe says what is known of a lock. member is its holder's session, nil: it has
// none any more.
func describe(h *lease.Holder, member *lease.Member) lockRow {
	r := lockRow{Key: h.Key, State: "kept", Value: h.Value}
	for _, w := range h.Waiters {
		r.Waiting = append(r.Waiting, w.Owner)
	}
	switch {
	case h.Reserved() != nil:
		r.State = "reserved"
		return r
	case !h.Held():
		return r
	}
	r.State, r.Owner, r.Token, r.Session, r.Acquired = "dead", h.Owner, h.Token, h.Session, &h.Acquired
	if member != nil {
		r.State, r.Host, r.PID, r.Metadata = "live", member.Host, member.PID, member.Metadata
		r.LastBeat, r.TTL = &member.RenewedAt, member.TTL.String()
	}
	return r
}

// during runs do with the store opened, for as long as --timeout allows.
func (c *cli) during(ctx context.Context, do func(ctx context.Context, s *opened) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	err = c.unanswered(do(ctx, s))
	return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
}

// untilStopped runs do with the store opened, until a signal ends its context.
func (c *cli) untilStopped(ctx context.Context, do func(ctx context.Context, s *opened) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	err = do(ctx, s)
	return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
}

// unanswered is err with the status of a store that is out of reach, if --timeout
// has ended a call: nobody has waited for a lock.
func (c *cli) unanswered(err error) error {
	if errors.Is(err, context.DeadlineExceeded) && statusOf(err) == statusNotAcquired {
		return &exit{statusUnavailable, fmt.Errorf("no answer within %v: %w", c.timeout, err)}
	}
	return err
}

func (c *cli) listCommand() *cobra.Command {
	var every time.Duration
	cmd := &cobra.Command{
		Use: "ls [PREFIX]", Short: "List the locks that are held, and what keys keep",
		Long: `ls lists the locks whose keys begin with PREFIX.

STATE is live if the holder has a session, dead if it has none any more: then the next who asks gets the lock.
kept is a key that nobody holds and that keeps a value. reserved is one that nobody holds, where it is the turn
of the first who waits. WAITING are those that have a place in the lock's queue, in order: they have waited for
a second. BEAT is the age of the holder's last heartbeat by the holder's own clock, which may be wrong. Whether
a silent holder is dead only watching it for its TTL tells.

--watch lists again every 2 seconds, or as often as it says, and watches the holders. Then STATE may be overdue, if no
heartbeat was seen for two thirds of the TTL, and expired after the TTL and a sixteenth, when others take the lock.
SILENT is for how long none was seen.`,
		Args: onePrefix("ls"),
		RunE: func(cmd *cobra.Command, args []string) error {
			prefix := strings.Join(args, "")
			if cmd.Flags().Changed(watchFlag) {
				return c.listAgain(cmd.Context(), prefix, every)
			}
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error { return c.ls(ctx, s, prefix, nil) })
		},
	}
	cmd.Flags().DurationVar(&every, watchFlag, 0, "list again, every 2s or as often as this says, until interrupted")
	cmd.Flags().Lookup(watchFlag).NoOptDefVal = "2s"
	return cmd
}

const watchFlag = "watch"

// ls lists once. w judges the holders, nil: nobody watches.
func (c *cli) ls(ctx context.Context, s *opened, prefix string, w *watcher) error {
	members := map[string]*lease.Member{}
	for m, err := range s.Members(ctx) {
		if err != nil && !errors.Is(err, kv.ErrFormat) {
			return err
		}
		if err == nil {
			members[m.Session] = m
		}
	}
	columns := []column{{name: "KEY"}, {name: "STATE"}, {name: "OWNER"}, {name: "TOKEN"}, {name: "HELD FOR"},
		{name: "BEAT"}, {name: "WAITING"},
		{name: "HOST", wide: true}, {name: "PID", wide: true}, {name: "SESSION", wide: true}}
	var silent map[string]time.Duration
	if w != nil {
		silent = w.observe(members, time.Now())
		columns = slices.Insert(columns, 6, column{name: "SILENT"})
	}
	l := c.list(columns...)
	for h, err := range s.Keys(ctx, prefix) {
		if err != nil && !errors.Is(err, kv.ErrFormat) {
			return err
		}
		row := lockRow{State: "unreadable"}
		switch {
		case err == nil:
			row = describe(h, members[h.Session])
			if watched, ok := silent[h.Session]; ok && row.State == "live" {
				row.State, row.Silent = judge(watched, members[h.Session]), watched.Round(time.Millisecond).String()
			}
		case h != nil:
			row.Key, row.Error = h.Key, err.Error()
		}
		if err := l.add(row.Key, row.cells(), row); err != nil {
			return err
		}
	}
	return l.end()
}

func (r lockRow) cells() map[string]string {
	cells := map[string]string{
		"KEY": r.Key, "STATE": r.State, "OWNER": r.Owner, "HOST": r.Host, "SESSION": r.Session, "SILENT": r.Silent,
		"WAITING": few(r.Waiting),
	}
	if r.Token != 0 {
		cells["TOKEN"] = strconv.FormatUint(r.Token, 10)
	}
	if r.PID != 0 {
		cells["PID"] = strconv.Itoa(r.PID)
	}
	if r.Acquired != nil {
		cells["HELD FOR"] = ago(*r.Acquired)
	}
	if r.LastBeat != nil {
		cells["BEAT"] = ago(*r.LastBeat)
	}
	return cells
}

// few are the first of some names, and how many more there are.
func few(names []string) string {
	const shown = 3
	text := strings.Join(names[:min(shown, len(names))], ", ")
	if more := len(names) - shown; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

func (c *cli) showCommand() *cobra.Command {
	return &cobra.Command{
		Use: "show KEY", Short: "Show who holds a lock", Args: oneKey("show"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.during(cmd.Context(), func(ctx context.Context, s *opened) error {
				h, err := s.Inspect(ctx, args[0])
				if err != nil {
					return err
				}
				return c.show(h)
			})
		},
	}
}

func (c *cli) show(h *lease.Holder) error {
	row := describe(h, h.Member)
	switch {
	case c.output == "json" || c.output == "jsonl":
		return c.encode(row)
	case h.Version == 0:
		_, _ = fmt.Fprintf(c.out, "%s is free\n", printable(h.Key))
		return nil
	}
	say := func(name, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(c.out, "%-10s %s\n", name, printable(value))
		}
	}
	cells := row.cells()
	say("key", row.Key)
	say("state", map[string]string{
		"live":     "held, by a holder that has a session",
		"dead":     "held, by a holder without a session: the next who asks gets it",
		"kept":     "free, and keeps a value",
		"reserved": "free, and reserved for the first who waits",
	}[row.State])
	say("owner", row.Owner)
	say("token", cells["TOKEN"])
	say("host", row.Host)
	say("pid", cells["PID"])
	say("held for", cells["HELD FOR"])
	if row.LastBeat != nil {
		say("last beat", cells["BEAT"]+" ago by the holder's clock, of a TTL of "+row.TTL)
	}
	say("session", row.Session)
	for _, owner := range row.Waiting {
		say("waiting", owner)
	}
	for name, value := range row.Metadata {
		say("meta", name+"="+value)
	}
	if len(row.Value) > 0 {
		say("value", string(row.Value))
	}
	return nil
}

func oneKey(command string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage(fmt.Errorf("%s: want one KEY", command))
		}
		return nil
	}
}

// sessionRow is a session for -o json.
type sessionRow struct {
	Session  string            `json:"session"`
	Owner    string            `json:"owner"`
	Host     string            `json:"host"`
	PID      int               `json:"pid"`
	Since    time.Time         `json:"since"`
	LastBeat time.Time         `json:"last_beat"`
	TTL      string            `json:"ttl"`
	Joined   []string          `json:"joined,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Error    string            `json:"error,omitempty"`
}

func (c *cli) sessionsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "sessions", Short: "List the processes that have a session", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.during(cmd.Context(), c.sessions)
		},
	}
}

func (c *cli) sessions(ctx context.Context, s *opened) error {
	l := c.list(column{name: "OWNER"}, column{name: "HOST"}, column{name: "PID"}, column{name: "SINCE"},
		column{name: "BEAT"},
		column{name: "TTL"}, column{name: "JOINED"}, column{name: "SESSION", wide: true})
	for m, err := range s.Members(ctx) {
		if err != nil && (!errors.Is(err, kv.ErrFormat) || m == nil) {
			return err
		}
		r := sessionRow{
			Session: m.Session, Owner: m.Owner, Host: m.Host, PID: m.PID, Since: m.Since, LastBeat: m.RenewedAt,
			TTL: m.TTL.String(), Joined: m.Joined, Metadata: m.Metadata,
		}
		cells := map[string]string{
			"OWNER": m.Owner, "HOST": m.Host, "PID": strconv.Itoa(m.PID), "SINCE": ago(m.Since), "BEAT": ago(m.RenewedAt),
			"TTL": m.TTL.String(), "JOINED": strings.Join(m.Joined, " "), "SESSION": m.Session,
		}
		if err != nil {
			r.Error, cells = err.Error(), map[string]string{"OWNER": "unreadable", "SESSION": m.Session}
		}
		if err := l.add(m.Session, cells, r); err != nil {
			return err
		}
	}
	return l.end()
}
