package web_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

// fleet writes the rows of many processes, with owners and hosts as it likes.
type fleet struct {
	t     testing.TB
	store kv.Store
	now   func() time.Time

	mu      sync.Mutex
	members []*member
}

func newFleet(t testing.TB) *fleet { return &fleet{t: t, store: memkv.New(), now: time.Now} }

// member is one of those processes.
type member struct {
	fleet  *fleet
	row    rows.Session
	pair   *kv.KVPair
	id     string
	frozen bool
}

const attempt = time.Second

// member opens a session.
func (f *fleet) member(owner, host string, ttl time.Duration, joined ...string) *member {
	f.t.Helper()
	m := &member{fleet: f, id: rows.RandomID(16), row: rows.Session{
		Owner: owner, Host: host, PID: 1000 + len(f.members), TTL: ttl.Milliseconds(), Joined: joined, Since: f.now(),
	}}
	m.beat()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = append(f.members, m)
	return m
}

// beat writes a heartbeat.
func (m *member) beat() {
	m.row.RenewedAt, m.row.Nonce = m.fleet.now(), rows.RandomID(8)
	pair, err := m.fleet.store.AtomicPut(context.Background(), rows.SessionPrefix+m.id,
		m.row.Options(m.pair, kv.WithAttemptTimeout(attempt))...)
	require.NoError(m.fleet.t, err)
	m.pair = pair
}

// run lets all beat that are not frozen, until ctx ends.
func (f *fleet) run(ctx context.Context) {
	for ctx.Err() == nil {
		f.mu.Lock()
		for _, m := range f.members {
			if !m.frozen && f.now().Sub(m.row.RenewedAt) >= m.row.Lifetime()/3 {
				m.beat()
			}
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// freeze stops the heartbeats of a member.
func (f *fleet) freeze(m *member) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m.frozen = true
}

// hold writes that a member has held a key for so long. change changes the row.
func (m *member) hold(key string, held time.Duration, change ...func(*rows.Lease)) {
	m.fleet.t.Helper()
	row := rows.Lease{Session: m.id, Acq: rows.RandomID(16), Owner: m.row.Owner, Acquired: m.fleet.now().Add(-held)}
	for _, c := range change {
		c(&row)
	}
	_, err := m.fleet.store.AtomicPut(context.Background(), rows.LeasePrefix+key,
		row.Options(nil, kv.WithAttemptTimeout(attempt))...)
	require.NoError(m.fleet.t, err)
}

// keep writes a key that nobody holds.
func (f *fleet) keep(key string, value []byte, note string) {
	f.t.Helper()
	row := rows.Lease{Keep: true, Value: value}
	if note != "" {
		row.Note = []byte(note)
	}
	_, err := f.store.AtomicPut(context.Background(), rows.LeasePrefix+key,
		row.Options(nil, kv.WithAttemptTimeout(attempt))...)
	require.NoError(f.t, err)
}

// checkpointed makes a lease's row that of a partition.
func checkpointed(saved time.Time, checkpoint, note string) func(*rows.Lease) {
	return func(r *rows.Lease) {
		r.Keep, r.Value = true, partitionValue(saved, checkpoint)
		if note != "" {
			r.Note = []byte(note)
		}
	}
}

func partitionValue(saved time.Time, checkpoint string) []byte {
	if saved.IsZero() {
		return []byte(`{"f":1}` + "\n")
	}
	return fmt.Appendf(nil, `{"f":1,"saved_at":%q}`+"\n%s", saved.Format(time.RFC3339Nano), checkpoint)
}
