package lease

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// anySets are those that calls of a client wait for, by prefix or keys.
type anySets struct {
	mu   sync.Mutex
	sets map[string]*anySet
}

// anySet is where the AcquireAnys of one set by this client meet.
type anySet struct {
	id string
	// users counts who is here. line is who waits, first come first served: a
	// channel is closed when it is the first one. keys are those of the latest
	// request. anySets.mu guards the three.
	users int
	line  []chan struct{}
	keys  []string
	// freed gets a key that was given back in this process.
	freed chan string

	// What follows belongs to the first in the line. print is of the rows as they
	// were last listed.
	pace  pace
	print uint64
}

// awaitAny waits for its turn in this process, and then until it has a key.
func (c *Client) awaitAny(ctx context.Context, r *anyRequest) (*Lease, error) {
	set := c.anySetOf(r)
	defer c.leaveAny(set)
	first := c.lineUp(set)
	defer c.stepOut(set, first)
	blind := true
	select {
	case <-first:
	default:
		blind = false // who waited here knows that it was full: a listing is cheaper
		r.emitWaiting(c, &allHeld{holders: []Holder{{Key: r.keys[0], Owner: c.owner}}}, nil)
		select {
		case <-first:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if err := c.contact.Unmet(r.began); err != nil { // whoever was first has told
			return nil, fmt.Errorf("lease: acquiring any: %w", err)
		}
	}
	if set.pace.since.IsZero() {
		set.pace.since = c.clock.Now()
	}
	for ; ; blind = false {
		select {
		case <-set.freed: // what it tells of is seen now
		default:
		}
		l, err := c.tryAny(ctx, r, set, blind)
		if err == nil {
			return l, nil
		}
		var full *allHeld
		if !errors.As(err, &full) && !c.worthWaiting(ctx, &set.pace, err) {
			return nil, err
		}
		r.note(full, err)
		if full == nil || full.err != nil {
			set.pace.failed(c)
		} else {
			set.pace.succeeded()
		}
		r.emitWaiting(c, full, err)
		key, err := c.pauseAny(ctx, set, full)
		if err != nil {
			return nil, err
		}
		if l := c.tryFreed(ctx, r, key); l != nil {
			return l, nil
		}
	}
}

// note notes what a round has found: who has the keys, or why it failed.
func (r *anyRequest) note(full *allHeld, err error) {
	if full != nil {
		r.holders, err = full.holders, full.err
	}
	r.trouble = err
}

// pauseAny waits for the next round, or until a key of the set was given back in
// this process.
func (c *Client) pauseAny(ctx context.Context, set *anySet, full *allHeld) (freed string, err error) {
	var b *heldRow
	if full != nil {
		b = &heldRow{recheck: full.recheck}
	}
	t := c.clock.NewTimer(set.pace.pause(c, b, c.clock.Now(), &watch{}))
	defer t.Stop()
	select {
	case <-t.C():
		return "", nil
	case key := <-set.freed:
		return key, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// tryFreed creates the key that was just given back in this process.
func (c *Client) tryFreed(ctx context.Context, r *anyRequest, key string) *Lease {
	if key == "" || !slices.Contains(r.keys, key) || c.touch(key) != untouched || r.listingDue(c) {
		return nil
	}
	l, _ := c.tryOne(ctx, r, key, nil) // what fails is seen by the listing
	return l
}

// listedRows are the rows of a set. Those that cannot be read come apart.
type listedRows struct {
	rows       map[string]*rows.Found
	unreadable map[string]error
	print      uint64
}

// listAny reads the rows of the set, strongly.
func (c *Client) listAny(ctx context.Context, r *anyRequest, set *anySet) (*listedRows, error) {
	listed := &listedRows{rows: map[string]*rows.Found{}, unreadable: map[string]error{}}
	read := listed.readEach
	if r.listing != nil {
		read = listed.readPrefix
	}
	if err := read(ctx, c, r); err != nil {
		return nil, err
	}
	if r.listing != nil && r.listing.keys != nil {
		if err := r.choose(r.listing.keys(listed.holders())); err != nil {
			return nil, err
		}
	}
	r.listed = c.clock.Now()
	if set != nil {
		c.sets.mu.Lock()
		set.keys = r.keys
		c.sets.mu.Unlock()
		if listed.print != set.print {
			set.print, set.pace.since = listed.print, r.listed // the pauses grow while nothing changes (R9.3)
		}
	}
	return listed, nil
}

// readEach reads one key after the other.
func (l *listedRows) readEach(ctx context.Context, c *Client, r *anyRequest) error {
	for _, key := range r.keys {
		pair, err := c.store.Get(ctx, rows.LeasePrefix+key, c.attempts)
		if err == nil {
			l.add(pair)
		} else if !errors.Is(err, kv.ErrKeyNotFound) {
			return fmt.Errorf("lease: acquiring any: reading %q: %w", key, err)
		}
	}
	return nil
}

// readPrefix lists all keys in one go.
func (l *listedRows) readPrefix(ctx context.Context, c *Client, r *anyRequest) error {
	for pair, err := range kv.All(ctx, c.store, rows.LeasePrefix+r.listing.prefix, c.attempts) {
		if err != nil {
			return fmt.Errorf("lease: acquiring any: listing %q: %w", r.listing.prefix, err)
		}
		l.add(pair)
	}
	return nil
}

func (l *listedRows) add(pair *kv.KVPair) {
	key := strings.TrimPrefix(pair.Key, rows.LeasePrefix)
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, key, pair.Version, l.print)
	l.print = h.Sum64()
	if row, err := rows.Read(pair); err != nil {
		l.unreadable[key] = err
	} else {
		l.rows[key] = row
	}
}

// holders are the rows that could be read, in order.
func (l *listedRows) holders() []*Holder {
	all := make([]*Holder, 0, len(l.rows))
	for key, row := range l.rows {
		h := showHolder(key, row)
		all = append(all, &h)
	}
	slices.SortFunc(all, func(a, b *Holder) int { return strings.Compare(a.Key, b.Key) })
	return all
}

// anySetOf returns the set of a request. The caller leaves it with leaveAny.
func (c *Client) anySetOf(r *anyRequest) *anySet {
	id := "\x00" + strings.Join(r.keys, "\x00")
	if r.listing != nil {
		id = r.listing.prefix
	}
	c.sets.mu.Lock()
	defer c.sets.mu.Unlock()
	if c.sets.sets == nil {
		c.sets.sets = map[string]*anySet{}
	}
	set, ok := c.sets.sets[id]
	if !ok {
		set = &anySet{id: id, freed: make(chan string, 1)}
		c.sets.sets[id] = set
	}
	set.users++
	set.keys = r.keys
	return set
}

func (c *Client) leaveAny(set *anySet) {
	c.sets.mu.Lock()
	defer c.sets.mu.Unlock()
	if set.users--; set.users == 0 {
		delete(c.sets.sets, set.id)
	}
}

// lineUp puts the caller at the end of the line, stepOut takes it out.
func (c *Client) lineUp(set *anySet) (first chan struct{}) {
	c.sets.mu.Lock()
	defer c.sets.mu.Unlock()
	first = make(chan struct{})
	if set.line = append(set.line, first); len(set.line) == 1 {
		close(first)
	}
	return first
}

func (c *Client) stepOut(set *anySet, first chan struct{}) {
	c.sets.mu.Lock()
	defer c.sets.mu.Unlock()
	i := slices.Index(set.line, first)
	if set.line = slices.Delete(set.line, i, i+1); i == 0 && len(set.line) > 0 {
		close(set.line[0])
	}
}

// wake tells the sets that have the key that it was given back.
func (s *anySets) wake(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, set := range s.sets {
		if !slices.Contains(set.keys, key) {
			continue
		}
		select {
		case set.freed <- key:
		default: // word of another one is there: the listing finds both
		}
	}
}
