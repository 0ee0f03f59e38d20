package dynamokv

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/kv"
)

// ErrTableNotFound says that the table does not exist, in this account and
// Region. Nothing was written.
var ErrTableNotFound = errors.New("dynamokv: table does not exist")

// Client is what a Store needs of DynamoDB. *dynamodb.Client has it. An implementation must
// honour the options of each call: those that turn retries off keep writes safe.
type Client interface {
	GetItem(context.Context, *dynamodb.GetItemInput, ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error)
	PutItem(context.Context, *dynamodb.PutItemInput, ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error)
	UpdateItem(context.Context, *dynamodb.UpdateItemInput, ...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error)
	Query(context.Context, *dynamodb.QueryInput, ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error)
}

// Deleter is what a Store whose retention is 0 needs of its Client besides:
// *dynamodb.Client has it.
type Deleter interface {
	DeleteItem(context.Context, *dynamodb.DeleteItemInput, ...func(*dynamodb.Options)) (*dynamodb.DeleteItemOutput, error)
}

// Store is a kv.Store in a DynamoDB table. Make it with New. It is safe for concurrent use.
// It holds nothing that needs closing.
type Store struct {
	client  Client
	deleter Deleter // nil unless the retention is 0
	table   string
	config

	highest      atomic.Uint64 // the highest plausible version seen: W7 of the protocol
	returnsItems atomic.Bool   // the endpoint has returned a row that failed a condition
	met          atomic.Bool   // DynamoDB has answered

	paces []*pace // of the writes to each shard, then of its reads

	agreeing chan struct{}                 // a slot for who looks at the layout
	agreed   atomic.Bool                   // the layout row has this Store's shards
	absent   atomic.Pointer[clock.Reading] // when there was no layout row yet
}

var (
	_ kv.Store        = (*Store)(nil)
	_ kv.WriteDelayer = (*Store)(nil)
)

const (
	defaultPartition = "dynalock"
	defaultRetention = 24 * time.Hour
	// minRetention exceeds MaxWriteDelay, the minute of S6 and a generous difference of clocks.
	minRetention = time.Hour
	maxRetention = 10 * 365 * 24 * time.Hour
	// maxWriteDelay is for how long DynamoDB takes a signed request.
	maxWriteDelay = 15 * time.Minute

	// maxPartitionSize and maxKeyName are DynamoDB's.
	maxPartitionSize = 2048
	maxKeyName       = 255
)

// Names of the attributes that the driver uses, other than those of the key.
const (
	attrVersion  = "version"
	attrPayload  = "payload"
	attrWriter   = "writer"
	attrDeadline = "deadline"
	attrExpires  = "expires"
	attrDeleted  = "deleted"
)

// config is what the options of New and EnsureTable set.
type config struct {
	partition string
	shards    int
	retention time.Duration
	clock     clock.Clock
	idName    string
	nameName  string

	readUnits, writeUnits int64 // 0: on demand
}

// Option is an option of New and EnsureTable.
type Option func(*config) error

// WithPartition sets the value of the partition key that the Store lives in: 1 to 2,048
// bytes, "dynalock" by default. It must not end in # and digits, as shards do. Stores of
// different partitions share nothing but the table.
func WithPartition(id string) Option {
	return func(c *config) error {
		if id == "" || len(id) > maxPartitionSize {
			return fmt.Errorf("WithPartition: %d bytes, want 1 to %d: %w", len(id), maxPartitionSize, kv.ErrInvalidOption)
		}
		c.partition = id
		return nil
	}
}

// WithRetention sets how long tombstones and expired rows stay before DynamoDB
// may sweep them: 24 h by default, 1 h to 87,600 h (ten years of 365 days).
// Clocks of machines that share the table must agree to within it, less 16
// minutes.
//
// 0 makes Delete and AtomicDelete remove the row at once. Expired rows go when DynamoDB
// sweeps them. The client must be a [Deleter] then. With the tombstone goes the promise
// that rests on it (S3):
//
//   - A create of unknown outcome, or one that the network doubled, may land after the key
//     was deleted, and bring it back.
//   - Versions of a key grow across a delete as far as the clocks of those who create it
//     agree, and not if the create began before the delete.
//   - An AtomicDelete that was applied, and whose answer was lost, is an ErrUncertain without
//     a pair.
//
// Do not keep leases in such a Store. All Stores of a partition should have the same
// retention.
func WithRetention(d time.Duration) Option {
	return func(c *config) error {
		if d != 0 && (d < minRetention || d > maxRetention) {
			return fmt.Errorf("WithRetention(%v): want 0, or %v to %v: %w",
				d, minRetention, maxRetention, kv.ErrInvalidOption)
		}
		c.retention = d
		return nil
	}
}

// WithKeyNames sets the names of the table's partition and sort key, "id" and
// "name" by default: 1 to 255 bytes each. No field can have these names.
func WithKeyNames(partitionKey, sortKey string) Option {
	return func(c *config) error {
		own := []string{attrVersion, attrPayload, attrWriter, attrDeadline, attrExpires, attrDeleted}
		for _, name := range []string{partitionKey, sortKey} {
			if name == "" || len(name) > maxKeyName || partitionKey == sortKey || slices.Contains(own, name) {
				return fmt.Errorf("WithKeyNames(%q, %q): want two names of 1 to %d bytes, none of %v: %w",
					partitionKey, sortKey, maxKeyName, own, kv.ErrInvalidOption)
			}
		}
		c.idName, c.nameName = partitionKey, sortKey
		return nil
	}
}

// WithProvisionedCapacity makes EnsureTable create the table with this many read and write
// capacity units, each at least 1, instead of on demand. A table that exists keeps the
// capacity that it has. New ignores it.
func WithProvisionedCapacity(read, write int64) Option {
	return func(c *config) error {
		if read < 1 || write < 1 {
			return fmt.Errorf("WithProvisionedCapacity(%d, %d): want at least 1 of each: %w", read, write, kv.ErrInvalidOption)
		}
		c.readUnits, c.writeUnits = read, write
		return nil
	}
}

// WithClock sets the clock, that of the machine by default. It is for tests inside this module.
func WithClock(clk clock.Clock) Option {
	return func(c *config) error {
		if clk == nil {
			return fmt.Errorf("WithClock(nil): %w", kv.ErrInvalidOption)
		}
		c.clock = clk
		return nil
	}
}

// New returns the Store of one partition of table. It sends nothing: a missing table shows
// at the first use, as ErrTableNotFound.
func New(client Client, table string, options ...Option) (*Store, error) {
	if client == nil {
		return nil, fmt.Errorf("dynamokv: the client is nil: %w", kv.ErrInvalidOption)
	}
	c, err := newConfig(table, options)
	if err != nil {
		return nil, err
	}
	s := &Store{client: client, table: table, config: c, agreeing: make(chan struct{}, 1)}
	for range 2 * c.shards {
		s.paces = append(s.paces, new(pace))
	}
	if c.retention == 0 {
		var ok bool
		if s.deleter, ok = client.(Deleter); !ok {
			return nil, fmt.Errorf("dynamokv: WithRetention(0): %T has no DeleteItem: %w", client, kv.ErrInvalidOption)
		}
	}
	return s, nil
}

func newConfig(table string, options []Option) (config, error) {
	c := config{
		partition: defaultPartition, shards: 1, retention: defaultRetention, clock: clock.System, idName: "id",
		nameName: "name",
	}
	if table == "" {
		return config{}, fmt.Errorf("dynamokv: the table's name is empty: %w", kv.ErrInvalidOption)
	}
	for _, option := range options {
		if err := option(&c); err != nil {
			return config{}, fmt.Errorf("dynamokv: %w", err)
		}
	}
	if err := c.checkPartition(); err != nil {
		return config{}, fmt.Errorf("dynamokv: %w", err)
	}
	return c, nil
}

// MaxWriteDelay implements kv.WriteDelayer: 15 minutes, for which DynamoDB takes a signed request.
func (s *Store) MaxWriteDelay() time.Duration { return maxWriteDelay }

// createVersion is N of the protocol: what a create that begins at now gives its row.
func (s *Store) createVersion(now time.Time) uint64 {
	micros := uint64(now.UnixMicro())
	if highest := s.highest.Load(); highest >= micros && plausible(highest, now) {
		return highest + 1
	}
	return micros
}

// observeVersion remembers the highest version, so that this Store's next
// create needs no second try (W7).
func (s *Store) observeVersion(version uint64, now time.Time) {
	for plausible(version, now) {
		highest := s.highest.Load()
		if version <= highest && plausible(highest, now) || s.highest.CompareAndSwap(highest, version) {
			return
		}
	}
}

// plausible reports whether a working clock may have given version: one row of nonsense
// must not raise all others.
func plausible(version uint64, now time.Time) bool {
	return version <= uint64(now.Add(maxWriteDelay).UnixMicro())
}

// newWriteID returns at least 128 random bits.
func newWriteID() string { return rand.Text() }
