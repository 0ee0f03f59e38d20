package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

const (
	// slowAnswer is from when a round trip is worth a word: an attempt has a second.
	slowAnswer = 300 * time.Millisecond
	// wrongClock is from when a clock is. DynamoDB refuses one that is off by 15
	// minutes, and versions of new keys come from it.
	wrongClock = time.Minute
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
something is wrong.

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

// examine makes all checks. Where the store does not answer, the first says so and
// is the last.
func examine(ctx context.Context, s *opened, watch time.Duration) []finding {
	reads := checkReads(ctx, s.store)
	findings := []finding{reads}
	if !reads.OK {
		return findings
	}
	findings = append(findings, checkWrites(ctx, s.store), checkClock(ctx, s.spec))
	sessions, members := checkSessions(ctx, s.Client)
	findings = append(findings, sessions, checkLocks(ctx, s.Client, members))
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

// checkReads reads a key five times.
func checkReads(ctx context.Context, store kv.Store) finding {
	var took []time.Duration
	for range 5 {
		began := time.Now()
		if _, err := store.Exists(ctx, "doctor/"+rand.Text()); err != nil {
			return wrong("reads", "%v", err)
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	if median := took[2]; median >= slowAnswer {
		return wrong("reads",
			"answered in %v: an attempt has a second, so locks will be lost: move closer, or look for throttling",
			median.Round(time.Millisecond))
	}
	return good("reads", "answered in %v", took[2].Round(10*time.Microsecond))
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

// checkClock compares this machine's clock with the Date of an answer of DynamoDB's
// endpoint.
func checkClock(ctx context.Context, spec string) finding {
	rest, ok := strings.CutPrefix(spec, "dynamodb:")
	if !ok {
		return good("clock", "not compared: this store goes by its own or by this machine's")
	}
	endpoint, err := endpointOf(ctx, rest)
	if err != nil {
		return wrong("clock", "%v", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return wrong("clock", "%v", err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return wrong("clock", "%v", err)
	}
	defer func() { _ = answer.Body.Close() }()
	return compareClocks(answer.Header.Get("Date"), time.Now())
}

// compareClocks judges a clock that shows now by the Date of an answer.
func compareClocks(date string, now time.Time) finding {
	theirs, err := http.ParseTime(date)
	if err != nil {
		return good("clock", "not compared: the endpoint tells no date")
	}
	off := now.Sub(theirs).Round(time.Second)
	if off.Abs() >= wrongClock {
		return wrong("clock", "this machine's clock is off by %v: set it (chrony, ntpd); DynamoDB refuses 15 minutes", off)
	}
	return good("clock", "within %v of the endpoint's", max(off.Abs(), time.Second))
}

func endpointOf(ctx context.Context, rest string) (string, error) {
	_, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", err
	}
	for _, endpoint := range []string{values.Get("endpoint"), os.Getenv("AWS_ENDPOINT_URL_DYNAMODB"),
		os.Getenv("AWS_ENDPOINT_URL")} {
		if endpoint != "" {
			return endpoint, nil
		}
	}
	client, _, _, err := dynamoDB(ctx, rest)
	if err != nil {
		return "", err
	}
	return "https://dynamodb." + client.Options().Region + ".amazonaws.com", nil
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
