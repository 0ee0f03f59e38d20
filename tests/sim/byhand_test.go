package sim_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
)

// deletions: now and then somebody deletes a row by hand.
func (w *world) deletions(ctx context.Context) {
	rng := w.rng("deletions")
	for w.sleep(ctx, time.Duration(rng.ExpFloat64()*float64(w.trouble.deletions))) {
		w.mu.Lock()
		live := map[string]string{}
		for name, row := range w.rows {
			if row.live && !row.foreign {
				live[w.aliasLocked(name)] = name
			}
		}
		if aliases := slices.Sorted(maps.Keys(live)); len(aliases) > 0 {
			name := live[aliases[rng.IntN(len(aliases))]]
			w.deleteLocked(name, rng)
		}
		w.mu.Unlock()
	}
}

// deleteLocked deletes a row of a session or a lease as a person does it: with
// a program of this library, or with another one, which leaves no tombstone. Of
// the acquisitions that depended on the row not all is expected any more
// (excused).
func (w *world) deleteLocked(name string, rng *rand.Rand) {
	row := w.rows[name]
	key, isLease := strings.CutPrefix(name, "lease/")
	var err error
	if forgettable(name, row) && rng.IntN(2) == 0 {
		w.recordLocked(nil, "BY HAND, no trace", name, row.version)
		_, err = w.server.Client().DeleteItem(context.Background(), &dynamodb.DeleteItemInput{
			TableName: aws.String("table"), Key: itemKey(name, row),
		})
		row.version, row.swept = 0, true
	} else {
		w.recordLocked(nil, "BY HAND", name, row.version)
		var store *dynamokv.Store
		store, err = dynamokv.New(w.server.Client(), "table", dynamokv.WithClock(trueTime{clock.System}), dynamokv.WithShards(w.shards()))
		if err == nil {
			err = store.Delete(context.Background(), name)
		}
		row.version = max(row.version, w.versionOf(name, row))
	}
	if err != nil {
		w.failLocked("harness", "deleting %s by hand: %v", name, err)
	}
	row.live, row.changed = false, w.elapsed()
	if !isLease {
		row.ended, row.byHand = true, true
		return
	}
	row.deleted[row.token] = true
	delete(w.kept, key)
	if strings.HasPrefix(key, "once/") {
		w.slotLocked(key).byHand = true
	}
}

// forgettable reports whether a row may vanish without a trace. Versions of a
// lease's row would begin anew then, by the clock of whoever is next, and may be
// the same again (S3): a write that the old holder makes on its version takes
// the new one's row. Nobody makes a session's again. No write may be on its way
// that its tombstone would have refused.
func forgettable(name string, row *row) bool {
	return strings.HasPrefix(name, "session/") && row.underway == 0
}

func itemKey(name string, row *row) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"id": row.id, "name": &types.AttributeValueMemberS{Value: name}}
}

// versionOf is what the table has.
func (w *world) versionOf(name string, row *row) uint64 {
	out, err := w.server.Client().GetItem(context.Background(), &dynamodb.GetItemInput{
		TableName: aws.String("table"), Key: itemKey(name, row), ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		w.failLocked("harness", "%v", err)
		return 0
	}
	version, err := strconv.ParseUint(text(out.Item["version"]), 10, 64)
	if err != nil {
		w.failLocked("harness", "%s: %v", name, err)
	}
	return version
}

// excused reports whether somebody has deleted the row of a grant, or that of
// its session, by hand: others may have been given the key since, and its
// holder may not know for as long as it lives. Everybody else is judged as
// always, and so is what its holder writes.
func (w *world) excused(g *grant) bool {
	if row := w.rows["lease/"+g.key]; row != nil && row.deleted[g.token] {
		return true
	}
	s := w.rows["session/"+g.session]
	return s != nil && s.byHand
}

// rowsDeleted: without any other fault a leader whose row was deleted notices
// within a TTL, a member whose session was deleted is one again with another,
// and both keys can be had.
func (w *world) rowsDeleted() {
	rng := w.rng("rows deleted")
	ttl := w.ttls[0]
	n := w.start("deleted", ttl, rng)
	n.link.set(func(l *link) { l.clear = true })
	a := &actor{node: n, w: w, rng: rng}
	ctx, cancel := n.clock.WithTimeout(n.ctx, 5*time.Minute)
	defer cancel()
	leave, err := n.client.Join(ctx, groups[0])
	if err != nil {
		w.fail("I5", "joining without any fault: %v", err)
		return
	}
	defer leave()
	w.joined(n, groups[0])
	defer w.leaves(n, groups[0])
	t, err := n.election.Campaign(ctx, nil)
	if err != nil {
		w.fail("I5", "campaigning without any fault: %v", err)
		return
	}
	g := w.granted(n, electionKey, t)
	w.lost(g, "lease/"+electionKey, ttl)
	a.releaseBy(g, t.Resign)
	if g = a.acquire(ctx, "deleted", lease.WithRowCheck(time.Second)); g == nil {
		w.fail("I5", "a free key is not granted")
		return
	}
	if rng.IntN(2) == 0 {
		w.lost(g, "lease/deleted", time.Second)
	} else {
		w.lost(g, "session/"+n.client.Session(), ttl*11/30)
		w.sleep(ctx, time.Second)
		w.isMember(n, groups[0], true)
	}
	a.release(g)
	w.gets(a, "deleted", time.Second)
}

// lost deletes a row by hand: the grant that depends on it ends within the
// time, and that of its requests.
func (w *world) lost(g *grant, row string, within time.Duration) {
	w.mu.Lock()
	w.deleteLocked(row, w.rng("lost"))
	w.mu.Unlock()
	began := w.elapsed()
	select {
	case <-g.lease.Context().Done():
	case <-time.After(time.Minute):
	}
	if took := w.elapsed() - began; took > within*104/100+100*time.Millisecond {
		w.fail("deleted", "%s noticed after %v that %s was deleted, not within %v", g.node.name, took, w.alias(row), within)
	}
}
