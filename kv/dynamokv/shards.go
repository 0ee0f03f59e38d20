package dynamokv

import (
	"fmt"
	"hash/fnv"
	"regexp"
	"strconv"

	"github.com/dynalock/dynalock/kv"
)

// maxShards bounds what a listing asks for.
const maxShards = 256

// shardName is what the partition key of a shard ends in.
var shardName = regexp.MustCompile(`#[0-9]+$`)

// WithShards spreads the pairs over n values of the partition key, "<partition>#0"
// and so on, by a hash of their keys: 1 to 256, 1 by default, which is the
// partition itself. Each has the throughput of a partition of DynamoDB: about
// 1,000 writes and 3,000 strongly consistent reads a second.
//
// A listing asks all shards, side by side, and costs at least one query each.
// Reads and writes of one key cost what they cost without shards.
//
// All Stores of a partition must have the same n. The first write records it in
// the table, and each Store reads it once, at its first use. A Store of another
// n refuses to work, with an error that matches [ErrShards]. To change n, move
// the pairs to another partition while nobody uses them.
func WithShards(n int) Option {
	return func(c *config) error {
		if n < 1 || n > maxShards {
			return fmt.Errorf("WithShards(%d): want 1 to %d: %w", n, maxShards, kv.ErrInvalidOption)
		}
		c.shards = n
		return nil
	}
}

// checkPartition refuses a partition that would be another one's shard.
func (c *config) checkPartition() error {
	if shardName.MatchString(c.partition) {
		return fmt.Errorf("WithPartition(%.40q): want no name that ends in # and digits, which shards end in: %w",
			c.partition, kv.ErrInvalidOption)
	}
	if n := len(c.shard(c.shards - 1)); n > maxPartitionSize {
		return fmt.Errorf("WithPartition: %d bytes with the number of a shard, want at most %d: %w",
			n, maxPartitionSize, kv.ErrInvalidOption)
	}
	return nil
}

// shard is the partition key of the i-th shard.
func (c *config) shard(i int) string {
	if c.shards == 1 {
		return c.partition
	}
	return c.partition + "#" + strconv.Itoa(i)
}

// shardOf is the shard of a key: FNV-1a of 64 bits, its halves folded, since its
// lowest bits depend on the lowest of each byte alone. It is part of the data's
// format.
func (c *config) shardOf(key string) int {
	if c.shards == 1 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	sum := h.Sum64()
	return int((sum ^ sum>>32) % uint64(c.shards))
}

// hasShard reports whether id is the partition key of one of the shards.
func (c *config) hasShard(id string) bool {
	if c.shards == 1 {
		return id == c.partition
	}
	if len(id) <= len(c.partition) {
		return false
	}
	i, err := strconv.Atoi(id[len(c.partition)+1:])
	return err == nil && i >= 0 && i < c.shards && id == c.shard(i)
}
