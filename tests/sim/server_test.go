package sim_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/internal/clock"
)

// row is what the observer at the server knows of a row.
type row struct {
	version uint64
	live    bool
	// session and acq are what a lease row names, "" if it is unowned; token is
	// the version at which it was acquired.
	session, acq string
	token        uint64
	// keep: it keeps its value when it is free.
	keep  bool
	value string
	// owner is the node that made a session row, ended: it was deleted, used: a lease
	// row has named it, or it was heartbeat.
	owner *node
	ended bool
	used  bool
	// foreign: somebody else has heartbeat this session; byHand: somebody has deleted it
	// under its owner.
	foreign, byHand bool
	// deleted are the acquisitions whose lease row somebody has deleted under them.
	deleted map[uint64]bool
	// underway is how many writes of it are on the wire.
	underway int
	// joined are the groups that its last heartbeat names.
	joined []string
	// swept: it is gone for ever; changed is when it was last written.
	swept   bool
	changed time.Duration
	// item is what the last heartbeat left of a session row; id is its partition of the table.
	item map[string]types.AttributeValue
	id   types.AttributeValue
	ttl  time.Duration
	// beat is the last heartbeat's of a session row; revoked are the
	// acquisitions that operators have revoked in it.
	beat    string
	revoked map[string]bool
	// orphaned is since when a lease row of a live session has been nobody's
	// business, late how late the write landed.
	orphaned time.Duration
	late     time.Duration
	// began tells for each write of a session row, by its write id, what the
	// clocks of its node said when its first attempt was made; renewed is that
	// of the last one whose success its node knows: t0 of R3, measured from
	// outside.
	began   map[string]clock.Reading
	renewed clock.Reading
	// sent is when it was made; sessions is what each version of a lease row named.
	sessions map[uint64]string
	// handed are the versions that one acquisition of a session gave the row after another.
	handed map[uint64]bool
	sent   map[string]time.Duration
	// acquired is when each of its acquisitions was written.
	acquired map[uint64]time.Duration
	turn     turn
}

// record is what the observer reads of the value of a row.
type record struct {
	Session string   `json:"session"`
	Acq     string   `json:"acq"`
	TTL     int64    `json:"ttl_ms"`
	Beat    string   `json:"nonce"`
	Revoked []string `json:"revoked"`
	Keep    bool     `json:"keep"`
	Joined  []string `json:"joined"`
	Value   string   `json:"value"`
	Queue   []entry  `json:"queue"`
	Until   int64    `json:"until_ms"`
}

func (w *world) rowLocked(name string) *row {
	r, ok := w.rows[name]
	if !ok {
		r = &row{began: map[string]clock.Reading{}, sent: map[string]time.Duration{}, sessions: map[uint64]string{},
			revoked: map[string]bool{}, deleted: map[uint64]bool{}, handed: map[uint64]bool{}, acquired: map[uint64]time.Duration{}}
		w.rows[name] = r
	}
	return r
}

// dead: nobody heartbeats this session any more.
func (r *row) dead() bool { return r.ended || r.foreign || r.owner.gone || r.owner.closed }

func text(v types.AttributeValue) string {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return v.Value
	case *types.AttributeValueMemberN:
		return v.Value
	}
	return ""
}

// entered notes that the driver of a node makes an attempt.
func (w *world) entered(n *node, r request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	w.nameLocked(r.row, n)
	if n.closed {
		w.failLocked("I10", "%s sends %s %s after it was closed", n.name, r.op, w.aliasLocked(r.row))
	}
	if r.put == nil {
		return
	}
	row, writer := w.rowLocked(r.row), text(r.put["writer"])
	if _, again := row.sent[writer]; !again {
		row.sent[writer] = w.elapsed()
		row.began[writer] = n.clock.Now()
	}
}

// acknowledged notes an answer that has reached its driver, whose caller still waits.
func (w *world) acknowledged(n *node, r request, err error) {
	if r.op != "put" || !strings.HasPrefix(r.row, "session/") {
		return
	}
	writer := text(r.put["writer"])
	if err != nil && text(failedItem(err)["writer"]) != writer {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	row := w.rowLocked(r.row)
	t0, ok := row.began[writer]
	if !ok {
		return // it was not a heartbeat
	}
	row.renewed = t0
	w.recordLocked(n, "renewed", r.row, 0)
}

// underway counts the writes of a row that will land.
func (w *world) underway(r request, more int) {
	if r.put == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rowLocked(r.row).underway += more
}

// land lets a request act on the server, and checks what it does.
func (w *world) land(n *node, r request) (any, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out, err := r.serve()
	if r.put != nil {
		w.rowLocked(r.row).underway--
	}
	switch {
	case r.put == nil:
		w.recordLocked(n, r.op, r.row, 0)
	case err != nil:
		w.recordLocked(n, r.op+" refused", r.row, 0)
	default:
		version, parseErr := strconv.ParseUint(text(r.put["version"]), 10, 64)
		if parseErr != nil {
			w.failLocked("harness", "version %q", text(r.put["version"]))
		}
		w.recordLocked(n, r.op, r.row, version)
		w.written(n, r, version)
	}
	return out, err
}

// layoutRow says how many shards a partition has. It is the driver's own.
const layoutRow = "\x00layout"

// written checks a write that was applied.
func (w *world) written(n *node, r request, version uint64) {
	if r.row == layoutRow {
		return
	}
	row := w.rowLocked(r.row)
	if version <= row.version {
		w.failLocked("I11", "%s: version %d follows %d", w.aliasLocked(r.row), version, row.version)
	}
	var rec record
	if r.op == "put" {
		if err := json.Unmarshal([]byte(text(r.put["payload"])), &rec); err != nil {
			w.failLocked("harness", "payload of %s: %v", r.row, err)
		}
		rec.reserve()
	}
	if name, ok := strings.CutPrefix(r.row, "session/"); ok {
		w.sessionWritten(n, row, r, name, rec)
	} else if key, ok := strings.CutPrefix(r.row, "lease/"); ok {
		w.queued(n, row, r, key, rec)
		w.leaseWritten(n, row, r, key, rec, version)
		if strings.HasPrefix(key, "once/") {
			w.slotWritten(n, key, rec)
		}
	} else {
		w.failLocked("harness", "unknown row %q", r.row)
	}
	row.version, row.live, row.swept, row.changed, row.id = version, r.op == "put", false, w.elapsed(), r.put["id"]
}

func (w *world) sessionWritten(n *node, row *row, r request, id string, rec record) {
	switch {
	case r.op == "put" && row.ended && row.owner == n && (!row.used || row.byHand):
		// It was never used, nor heartbeat. Its node makes it again, to delete it (R1).
	case r.op == "put" && row.ended:
		w.failLocked("I11", "%s lives again, by %s", w.aliasLocked(r.row), n.name)
	case r.op == "put" && row.owner == nil:
		row.owner, row.ttl = n, time.Duration(rec.TTL)*time.Millisecond
	case r.op == "put" && row.owner != n && rec.Beat != row.beat: // an operator who revokes leaves the beat alone
		w.failLocked("I4", "%s heartbeats %s of %s", n.name, w.aliasLocked(r.row), row.owner.name)
	case r.op == "put" && row.foreign && rec.Beat != row.beat:
		w.failLocked("R2", "%s goes on with %s, which somebody else has written", n.name, w.aliasLocked(r.row))
	case r.op == "delete":
		row.ended = true
		if row.owner != n {
			w.tally["kills"]++
			w.killed(n, id)
		}
	}
	if r.op == "put" {
		if row.owner == n && rec.Beat != row.beat {
			row.joined = rec.Joined
			if row.live { // else it is made, perhaps to be deleted (R1)
				w.tells(n, rec.Joined, row.sent[text(r.put["writer"])])
			}
		}
		row.item = r.put
		row.used = row.used || row.live && rec.Beat != row.beat
	}
	if rec.Beat == row.beat {
		delete(row.began, text(r.put["writer"]))
	}
	row.beat = rec.Beat
	for _, entry := range rec.Revoked {
		row.revoked[entry] = true
	}
}

// killed: nobody believes in a session that another one kills.
func (w *world) killed(by *node, id string) {
	for key, grants := range w.grants {
		for _, g := range grants {
			if g.session == id && w.believed(g) {
				w.failLocked("I3", "%s kills the session of %s, which believes in its lease of %s (token %d)", by.name, g.node.name,
					key, g.token)
			}
		}
	}
}

func (w *world) leaseWritten(n *node, row *row, r request, key string, rec record, version uint64) {
	old := w.rows["session/"+row.session]
	oldLives := row.live && row.session != "" && old != nil && old.owner != nil && !old.ended
	switch {
	case row.live && rec.Acq != "" && rec.Acq == row.acq:
		w.updated(n, row, r, rec)
		return
	case rec.Session != "":
		if s := w.rows["session/"+rec.Session]; s == nil || s.owner != n {
			w.failLocked("R1", "%s names a session in %s that is not known to be there", n.name, r.row)
		}
		w.rowLocked("session/" + rec.Session).used = true
		if oldLives && old.owner != n {
			w.failLocked("I4", "%s takes %s from a live session of %s", n.name, r.row, old.owner.name)
		}
		switch {
		case oldLives:
			w.tally["handovers"]++
			row.handed[version] = true
		case row.live && row.session != "":
			w.tally["takeovers"]++
		}
	case oldLives && old.owner != n && !old.revoked[fmt.Sprintf("%s@%d", key, row.token)]:
		w.failLocked("I4", "%s frees %s of %s", n.name, r.row, old.owner.name)
	}
	w.unbelieved(n, r, key, version)
	w.keeps(n, row, r, rec, old)
	row.session, row.acq, row.token, row.sessions[version] = rec.Session, rec.Acq, version, rec.Session
	row.acquired[version] = w.elapsed()
	row.orphaned, row.late = w.elapsed(), w.elapsed()-row.sent[text(r.put["writer"])]
}

// updated checks a write of the acquisition that has the row already.
func (w *world) updated(n *node, row *row, r request, rec record) {
	// anyone may mark a partition
	if s := w.rows["session/"+row.session]; rec.Session != row.session || s == nil || s.owner != n &&
		rec.Value != row.value {
		w.failLocked("I4", "%s updates %s of another session", n.name, r.row)
	}
	row.value = rec.Value
	row.orphaned = w.elapsed()
}

// unbelieved: when a row changes hands, nobody believes in it.
func (w *world) unbelieved(n *node, r request, key string, version uint64) {
	for _, g := range w.grants[key] {
		if g.token != version && w.believed(g) {
			w.failLocked("I3", "%s writes %s while %s believes in it (token %d)", n.name, r.row, g.node.name, g.token)
		}
	}
}

// keeps: whoever frees or takes a row that keeps its value leaves the value,
// but for its holder (R19).
func (w *world) keeps(n *node, kept *row, r request, rec record, old *row) {
	if kept.keep && kept.live {
		switch {
		case r.op == "delete", !rec.Keep:
			w.failLocked("R19", "%s drops the value of %s", n.name, r.row)
		case rec.Value != kept.value && (old == nil || old.owner != n):
			w.failLocked("R19", "%s changes the value of %s, which it does not hold", n.name, r.row)
		}
	}
	kept.keep, kept.value = rec.Keep, rec.Value
}
