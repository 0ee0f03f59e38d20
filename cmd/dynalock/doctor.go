package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/pgkv"
	"github.com/dynalock/dynalock/lease"
)

const (
	// slowAnswer is from when a round trip is worth a word: an attempt has a second.
	slowAnswer = 300 * time.Millisecond
	// wrongClock is from when a clock is. DynamoDB refuses one that is off by 15
	// minutes, and versions of new keys come from it.
	wrongClock = time.Minute
	// manyDeleted rows make a listing longer by most of a page, which is a request.
	manyDeleted = 5000
)

// finding is what doctor has found out about one thing.
type finding struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Text  string `json:"text"`
}

func (c *cli) doctorCommand() *cobra.Command {
	var watch time.Duration
	cmd := &cobra.Command{
		Use: "doctor", Short: "Look for what is wrong with the store, and say what to do", Args: cobra.NoArgs,
		Long: `doctor reads, lists, and makes conditional writes that cannot apply. It changes nothing. Its status is 1 if
something is wrong. On DynamoDB it also checks the table and each permission, and counts deleted rows.

With --watch it lists the sessions twice, so long apart, and names those that sent no heartbeat in between.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.doctor(cmd.Context(), watch) },
	}
	cmd.Flags().DurationVar(&watch, "watch", 0, "watch the sessions for so long: their TTL shows which are dead")
	return cmd
}

func (c *cli) doctor(ctx context.Context, watch time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout+watch)
	defer cancel()
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close(context.WithoutCancel(ctx)) }()
	findings := examine(ctx, s, watch)
	l := c.list(column{name: "CHECK"}, column{name: "FOUND"}, column{name: "WHAT"})
	bad := 0
	for _, f := range findings {
		found := "ok"
		if !f.OK {
			bad++
			found = "WRONG"
		}
		if err := l.add(f.Check, map[string]string{"CHECK": f.Check, "FOUND": found, "WHAT": f.Text}, f); err != nil {
			return err
		}
	}
	if err := l.end(); err != nil || bad == 0 {
		return err
	}
	return &exit{statusFailed, fmt.Errorf("doctor: %d of %d checks found something wrong", bad, len(findings))}
}

// examine makes all checks. Where the store refuses reads or does not answer, only
// those that may say why.
func examine(ctx context.Context, s *opened, watch time.Duration) []finding {
	reads, err := checkReads(ctx, s.store)
	findings := []finding{reads}
	if ctx.Err() != nil || errors.Is(err, dynamokv.ErrTableNotFound) || errors.Is(err, pgkv.ErrTableNotFound) {
		return findings
	}
	findings = append(findings, checkClock(ctx, s.spec))
	dynamo, ok := kv.As[*dynamokv.Store](s.store)
	if ok {
		if permissions, asked := checkPermissions(ctx, dynamo); asked || err == nil {
			findings = append(findings, permissions)
		}
	}
	if ok && (err == nil || errors.Is(err, kv.ErrUnsupported)) { // of other keys, perhaps
		findings = append(findings, checkTable(ctx, s.spec))
	}
	if err != nil {
		return findings
	}
	findings = append(findings, checkWrites(ctx, s.store))
	sessions, members := checkSessions(ctx, s.Client)
	findings = append(findings, sessions, checkLocks(ctx, s.Client, members))
	if ok {
		findings = append(findings, checkDeleted(ctx, dynamo))
	}
	if watch > 0 {
		findings = append(findings, watchSessions(ctx, s.Client, members, watch))
	}
	return findings
}

func good(check, format string, args ...any) finding {
	return finding{Check: check, OK: true, Text: fmt.Sprintf(format, args...)}
}

func wrong(check, format string, args ...any) finding {
	return finding{Check: check, Text: fmt.Sprintf(format, args...)}
}

// checkReads reads a key five times. err is that of a read.
func checkReads(ctx context.Context, store kv.Store) (_ finding, err error) {
	var took []time.Duration
	for range 5 {
		began := time.Now()
		if _, err := store.Exists(ctx, "doctor/"+rand.Text()); err != nil {
			return wrong("reads", "%v%s", err, remedy(err)), err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if median := took[2]; median >= slowAnswer {
		return wrong("reads",
			"answered in %v: an attempt has a second, so locks will be lost: move closer, or look for throttling",
			median.Round(time.Millisecond)), nil
	}
	return good("reads", "answered in %v", took[2].Round(10*time.Microsecond)), nil
}

// remedy is what to do about an error that does not say so itself.
func remedy(err error) string {
	var lookup *net.DNSError
	switch {
	case errors.Is(err, dynamokv.ErrTableNotFound):
		return "; dynalock table create makes it"
	case errors.As(err, &lookup):
		return "; check the Region's name, the endpoint and this machine's name servers"
	case errors.Is(err, kv.ErrUnavailable):
		return "; check Region, endpoint and network"
	}
	return ""
}

// checkWrites makes writes that depend on a pair that is not there.
func checkWrites(ctx context.Context, store kv.Store) finding {
	key := "doctor/" + rand.Text()
	nothing := kv.NewPair(key, 1, nil, time.Time{}, nil)
	_, err := store.AtomicPut(ctx, key, kv.WithPrevious(nothing))
	if !errors.Is(err, kv.ErrKeyModified) {
		return wrong("writes", "a write that cannot apply should be refused as modified, and was: %v", err)
	}
	if err := store.AtomicDelete(ctx, key, nothing); !errors.Is(err, kv.ErrKeyModified) {
		return wrong("writes", "a delete that cannot apply should be refused as modified, and was: %v", err)
	}
	return good("writes", "conditional writes and deletes are allowed")
}

// checkSessions looks for rows that cannot be read and for clocks that disagree.
func checkSessions(ctx context.Context, client *lease.Client) (finding, []*lease.Member) {
	var members []*lease.Member
	var unreadable, ahead []string
	for m, err := range client.Members(ctx) {
		switch {
		case errors.Is(err, kv.ErrFormat):
			unreadable = append(unreadable, err.Error())
		case err != nil:
			return wrong("sessions", "%v", err), nil
		default:
			members = append(members, m)
			if time.Until(m.RenewedAt) >= wrongClock {
				ahead = append(ahead, m.Owner)
			}
		}
	}
	switch {
	case len(unreadable) > 0:
		return wrong("sessions", "%d cannot be read, so nobody takes them for dead; a newer version or a hand wrote them: %s",
			len(unreadable), unreadable[0]), members
	case len(ahead) > 0:
		return wrong("sessions", "%s sent heartbeats in the future of this machine: set its clock, or this one's",
			strings.Join(ahead, ", ")), members
	}
	return good("sessions", "%d", len(members)), members
}

// checkLocks looks for rows that cannot be read, and counts what the dead have left.
func checkLocks(ctx context.Context, client *lease.Client, members []*lease.Member) finding {
	alive := map[string]bool{}
	for _, m := range members {
		alive[m.Session] = true
	}
	held, dead := 0, 0
	var unreadable []string
	for h, err := range client.Keys(ctx, "") {
		switch {
		case errors.Is(err, kv.ErrFormat):
			unreadable = append(unreadable, err.Error())
		case err != nil:
			return wrong("locks", "%v", err)
		case h.Held():
			held++
			if !alive[h.Session] {
				dead++
			}
		}
	}
	if len(unreadable) > 0 {
		return wrong("locks", "%d cannot be read, so nobody gets them; a newer version or a hand wrote them: %s",
			len(unreadable), unreadable[0])
	}
	return good("locks", "%d held, %d of them by the dead, which the next who asks gets", held, dead)
}

// watchSessions names the sessions that were silent for longer than their TTL.
func watchSessions(ctx context.Context, client *lease.Client, before []*lease.Member, watch time.Duration) finding {
	select {
	case <-time.After(watch):
	case <-ctx.Done():
		return wrong("silent", "%v", ctx.Err())
	}
	last := map[string]time.Time{}
	for m, err := range client.Members(ctx) {
		if err == nil {
			last[m.Session] = m.RenewedAt
		}
	}
	var silent, young []string
	for _, m := range before {
		now, ok := last[m.Session]
		switch {
		case !ok || !now.Equal(m.RenewedAt):
		case watch < m.TTL:
			young = append(young, m.Owner)
		default:
			silent = append(silent, m.Owner)
		}
	}
	switch {
	case len(silent) > 0:
		return wrong("silent",
			"%s sent no heartbeat in %v, longer than its TTL: stopped, or cut off; whoever waits for its locks gets them",
			strings.Join(silent, ", "), watch)
	case len(young) > 0:
		return good("silent", "%s sent no heartbeat in %v, less than its TTL: watch for longer",
			strings.Join(young, ", "), watch)
	}
	return good("silent", "all sessions sent heartbeats")
}
