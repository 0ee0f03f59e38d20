package dynamokv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
)

// ErrShards says that other Stores spread the partition over another number of
// shards. Nothing was read or written. Errors that match it match
// kv.ErrInvalidOption too.
var ErrShards = errors.New("dynamokv: the partition has another number of shards")

const (
	// layoutKey is the sort key of the row that says how many shards a partition
	// has. The row is a tombstone that is never swept, so listings leave it out.
	layoutKey  = "\x00layout"
	attrShards = "shards"
	// absentFor is for how long reads believe that a partition has no layout.
	absentFor = time.Minute
	// layoutRounds bounds the looks at a layout row that cannot be made to stay.
	layoutRounds = 3
)

// agree makes sure, before op sends anything, that all Stores of the partition
// have the same number of shards. The first operation of a Store reads the
// layout row. A write makes it where there is none. A late or doubled attempt
// of that changes nothing: it is a create, and the row is never deleted.
//
// Only a write makes the row, so that a reader fixes nothing by mistake. Where
// there is none, reads look again after absentFor. budget is ctx, within the
// operation's time.
func (s *Store) agree(ctx, budget context.Context, op *operation) error {
	if op.key == layoutKey {
		return fmt.Errorf("dynamokv: key %q is the driver's own: %w", op.key, kv.ErrInvalidKey)
	}
	if op.layout || s.mayGoOn(op) {
		return nil
	}
	select {
	case s.agreeing <- struct{}{}:
		defer func() { <-s.agreeing }()
	case <-budget.Done():
		return op.abandon(ctx, budget.Err())
	}
	if s.mayGoOn(op) {
		return nil
	}
	// As a read, its errors say that op was not applied, also when the outcome of
	// the row's create is unknown.
	probe := *op
	probe.write, probe.layout, probe.pace = false, true, nil // it is in no shard
	for range layoutRounds {
		if done, err := s.lookAtLayout(ctx, &probe, op.write); done || err != nil {
			return err
		}
	}
	return fmt.Errorf("dynamokv: key %q: the layout of partition %q does not stay: %w",
		op.key, s.partition, kv.ErrUnavailable)
}

// mayGoOn reports that op needs no look at the layout.
func (s *Store) mayGoOn(op *operation) bool {
	if s.agreed.Load() {
		return true
	}
	absent := s.absent.Load()
	return !op.write && absent != nil && s.clock.Now().MonotonicSince(*absent) < absentFor
}

// lookAtLayout makes one round: it reads the layout row, and makes it if there
// is none and the operation writes. It is not done if another Store made it
// meanwhile.
func (s *Store) lookAtLayout(ctx context.Context, probe *operation, write bool) (done bool, err error) {
	if !write || s.absent.Swap(nil) == nil { // else it was absent a moment ago, and the create tells
		it, err := s.readLayout(ctx, probe)
		if err != nil {
			return false, err
		}
		if it != nil {
			return true, s.checkLayout(it)
		}
	}
	if s.shards > 1 {
		if err := s.checkUnsharded(ctx, probe); err != nil {
			return false, err
		}
	}
	if !write {
		now := s.clock.Now()
		s.absent.Store(&now)
		return true, nil
	}
	err = probe.run(ctx, s.createLayout(probe))
	var failed *types.ConditionalCheckFailedException
	if errors.As(err, &failed) {
		return false, nil
	}
	s.agreed.Store(err == nil)
	return err == nil, err
}

func (s *Store) layoutItem() item {
	return item{s.idName: stringAttr(s.partition), s.nameName: stringAttr(layoutKey)}
}

// readLayout returns the layout row, nil if there is none.
func (s *Store) readLayout(ctx context.Context, probe *operation) (item, error) {
	in := &dynamodb.GetItemInput{TableName: aws.String(s.table), Key: s.layoutItem(), ConsistentRead: aws.Bool(true)}
	var it item
	err := probe.run(ctx, func(ctx context.Context, options ...func(*dynamodb.Options)) error {
		out, err := s.client.GetItem(ctx, in, options...)
		if err == nil && len(out.Item) > 0 {
			it = out.Item
		}
		return err
	})
	return it, err
}

// checkLayout compares the row with this Store's shards.
func (s *Store) checkLayout(it item) error {
	d := decoder{key: layoutKey, it: it}
	shards := d.number(attrShards, true)
	if d.err != nil {
		return d.err
	}
	if shards != uint64(s.shards) {
		return s.refuseShards(fmt.Sprintf("its Stores have WithShards(%d)", shards))
	}
	s.agreed.Store(true)
	return nil
}

func (s *Store) refuseShards(others string) error {
	return fmt.Errorf("dynamokv: table %q, partition %q: %s, this one has WithShards(%d): %w: %w",
		s.table, s.partition, others, s.shards, ErrShards, kv.ErrInvalidOption)
}

// checkUnsharded refuses a partition that has a live row of a Store without
// shards, of a version that made no layout row.
func (s *Store) checkUnsharded(ctx context.Context, probe *operation) error {
	e := newExpression()
	in := &dynamodb.QueryInput{
		TableName:              aws.String(s.table),
		ConsistentRead:         aws.Bool(true),
		KeyConditionExpression: aws.String(e.attr(s.idName) + " = " + e.value(stringAttr(s.partition))),
		FilterExpression:       aws.String(e.notDead(probe.wall())),
		ProjectionExpression:   aws.String(e.attr(s.nameName)),
	}
	in.ExpressionAttributeNames, in.ExpressionAttributeValues = e.names, e.values
	for {
		var out *dynamodb.QueryOutput
		err := probe.run(ctx, func(ctx context.Context, options ...func(*dynamodb.Options)) (err error) {
			out, err = s.client.Query(ctx, in, options...)
			return err
		})
		switch {
		case err != nil:
			return err
		case len(out.Items) > 0:
			return s.refuseShards("it has pairs of Stores with WithShards(1)")
		case len(out.LastEvaluatedKey) == 0:
			return nil
		}
		in.ExclusiveStartKey = out.LastEvaluatedKey
	}
}

// createLayout makes the sender of the row's create. It returns no row that is
// in its way: the next round reads it.
func (s *Store) createLayout(probe *operation) sender {
	e := newExpression()
	put := s.layoutItem()
	put[attrShards] = numberAttr(s.shards)
	put[attrVersion] = numberAttr(1)
	put[attrWriter] = stringAttr(newWriteID())
	put[attrDeleted] = trueAttr()
	return s.putItem(put, e, fmt.Sprintf("attribute_not_exists(%s)", e.attr(s.idName)))
}
