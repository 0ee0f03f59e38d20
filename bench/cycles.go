package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
)

// operation does something with a key of its own, again and again; it counts as one.
type operation func(ctx context.Context, key int) error

// cycles measures acquire and release of distinct keys, beside the same two
// writes made without dynalock.
func cycles(ctx context.Context, r *rig) (section, error) {
	s := section{
		title: "Lock cycles per second",
		method: "Acquire and release, each goroutine on its own key, beside *bare* writes: on DynamoDB Local PutItems by the SDK with the very items and\n" +
			"expressions that the library sends; on memkv and sqlkv an AtomicPut and an AtomicDelete of the store. They take turns of 2 s, five\n" +
			"each after one to warm up; median, and smallest to greatest. A cycle is two writes, so a fraction of 0.50 would be a lock that costs no time of its own.",
		table: [][]string{{"Store", "Goroutines", "Bare writes per second", "Cycles per second", "Fraction"}},
	}
	p := plot{file: "cycles.svg", title: "Lock cycles per second, as a fraction of bare writes", line: 0.5,
		meaning: "two writes, and nothing else"}
	for _, kind := range []string{"memkv", "sqlkv", "DynamoDB Local"} {
		locked, bare, done, err := r.contestants(ctx, kind)
		if err != nil {
			return s, err
		}
		for _, goroutines := range []int{1, 16} {
			var cycle, write, fraction []float64
			for round := range pick(r, 6, 1) {
				w, err := rate(ctx, r, goroutines, bare)
				if err != nil {
					return s, err
				}
				c, err := rate(ctx, r, goroutines, locked)
				if err != nil {
					return s, err
				}
				if round == 0 && !r.quick {
					continue // to warm up
				}
				write, cycle, fraction = append(write, 2*w), append(cycle, c), append(fraction, c/w/2)
			}
			f := quantile(fraction, 0.5)
			s.table = append(s.table, []string{kind, strconv.Itoa(goroutines), spread(write, "%.0f"), spread(cycle, "%.0f"),
				spread(fraction, "%.2f")})
			p.bars = append(p.bars, bar{fmt.Sprintf("%s, %d goroutines", kind, goroutines), f, quantile(fraction, 0),
				quantile(fraction, 1), fmt.Sprintf("%.2f", f)})
		}
		if err := done(); err != nil {
			return s, err
		}
	}
	s.plots = []plot{p}
	return s, nil
}

// spread writes the median, and the least and the greatest.
func spread(values []float64, format string) string {
	return fmt.Sprintf(format+" ("+format+"–"+format+")", quantile(values, 0.5), quantile(values, 0), quantile(values, 1))
}

// rate is how often per second goroutines do op, each on its own key.
func rate(ctx context.Context, r *rig, goroutines int, op operation) (float64, error) {
	var group sync.WaitGroup
	var n atomic.Int64
	var failed atomic.Pointer[error]
	began := time.Now()
	end := began.Add(pick(r, 2*time.Second, 50*time.Millisecond))
	for key := range goroutines {
		group.Go(func() {
			for time.Now().Before(end) {
				if err := op(ctx, key); err != nil {
					failed.Store(&err)
					return
				}
				n.Add(1)
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return float64(n.Load()) / time.Since(began).Seconds(), nil
}

// contestants makes the two that are compared on a store.
func (r *rig) contestants(ctx context.Context, kind string) (locked, bare operation, done func() error, err error) {
	var store kv.Store
	closeStore := func() error { return nil }
	switch kind {
	case "memkv":
		store = memkv.New()
		bare = twoWrites(store)
	case "sqlkv":
		if store, closeStore, err = r.sqlite(ctx); err != nil {
			return nil, nil, nil, err
		}
		bare = twoWrites(store)
	default:
		table, err := r.table(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		recorder := &recorder{Client: r.db(&wire{base: new(http.Transport)})}
		if store, err = dynamokv.New(recorder, table); err != nil {
			return nil, nil, nil, err
		}
		if bare, err = recorder.replay(ctx, store); err != nil {
			return nil, nil, nil, err
		}
	}
	client, err := lease.New(store)
	if err != nil {
		return nil, nil, nil, err
	}
	locked = func(ctx context.Context, key int) error {
		l, err := client.TryAcquire(ctx, "key-"+strconv.Itoa(key))
		if err != nil {
			return err
		}
		return l.Release(ctx)
	}
	return locked, bare, func() error {
		if err := closeNow(client); err != nil {
			return err
		}
		return closeStore()
	}, nil
}

// twoWrites are those of a lock cycle, without the lock.
func twoWrites(store kv.Store) operation {
	value := make([]byte, 200) // about what a lease's row has
	return func(ctx context.Context, key int) error {
		pair, err := store.AtomicPut(ctx, "bare-"+strconv.Itoa(key), kv.WithBytes(value))
		if err != nil {
			return err
		}
		return store.AtomicDelete(ctx, pair.Key, pair)
	}
}

// recorder keeps the PutItems that go through it, until it is done.
type recorder struct {
	dynamokv.Client
	puts []*dynamodb.PutItemInput
	done atomic.Bool
}

// PutItem implements dynamokv.Client.
func (r *recorder) PutItem(ctx context.Context, in *dynamodb.PutItemInput,
	options ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	if !r.done.Load() {
		r.puts = append(r.puts, in)
	}
	return r.Client.PutItem(ctx, in, options...)
}

// replay makes a lock cycle to see its two writes, and returns an operation
// that sends the like, with the versions and key of its own.
func (r *recorder) replay(ctx context.Context, store kv.Store) (operation, error) {
	client, err := lease.New(store)
	if err != nil {
		return nil, err
	}
	l, err := client.TryAcquire(ctx, "recorded")
	if err != nil {
		return nil, err
	}
	token := l.Token()
	if err := l.Release(ctx); err != nil {
		return nil, err
	}
	r.done.Store(true)
	acquire, release := r.puts[len(r.puts)-2], r.puts[len(r.puts)-1]
	if err := closeNow(client); err != nil {
		return nil, err
	}
	var versions [16]uint64
	for i := range versions {
		versions[i] = token
	}
	return func(ctx context.Context, key int) error {
		v := versions[key] + 2
		versions[key] = v
		for i, in := range []*dynamodb.PutItemInput{like(acquire, key, token, v, v), like(release, key, token, v, v+1)} {
			if _, err := r.Client.PutItem(ctx, in); err != nil {
				return fmt.Errorf("bare write %d: %w", i, err)
			}
		}
		return nil
	}, nil
}

// like copies a write to another key: where its condition has the old version
// it gets condition, and its row gets version.
func like(in *dynamodb.PutItemInput, key int, old, condition, version uint64) *dynamodb.PutItemInput {
	c := *in
	c.Item, c.ExpressionAttributeValues = maps.Clone(in.Item), maps.Clone(in.ExpressionAttributeValues)
	c.Item["name"] = &types.AttributeValueMemberS{Value: "lease/bare-" + strconv.Itoa(key)}
	c.Item["version"] = &types.AttributeValueMemberN{Value: strconv.FormatUint(version, 10)}
	for name, value := range c.ExpressionAttributeValues {
		if n, ok := value.(*types.AttributeValueMemberN); ok && n.Value == strconv.FormatUint(old, 10) {
			c.ExpressionAttributeValues[name] = &types.AttributeValueMemberN{Value: strconv.FormatUint(condition, 10)}
		}
	}
	return &c
}
