package dynamokv_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/kvtest"
)

// shardedStore is a Store at its first use, and its client.
func shardedStore(t *testing.T, server *dynamomem.Server, n int) (*dynamokv.Store, *dynamomem.Client) {
	t.Helper()
	client := server.Client()
	t.Cleanup(client.Wait)
	s, err := dynamokv.New(client, "table", dynamokv.WithShards(n))
	require.NoError(t, err)
	return s, client
}

// requireRefused requires an error that names both numbers of shards.
func requireRefused(t *testing.T, err error, first, second int) {
	t.Helper()
	require.ErrorIs(t, err, dynamokv.ErrShards)
	require.ErrorIs(t, err, kv.ErrInvalidOption)
	require.ErrorContains(t, err, fmt.Sprintf("WithShards(%d)", first))
	require.ErrorContains(t, err, fmt.Sprintf("WithShards(%d)", second))
}

func TestContractOnShardsInMemory(t *testing.T) {
	t.Parallel()
	server := newMem()
	open := func(t *testing.T) kv.Store {
		s, _ := shardedStore(t, server, 4)
		return s
	}
	kvtest.Run(t, kvtest.Harness{
		Open:   open,
		Second: func(t *testing.T, _ kv.Store) kv.Store { return open(t) },
	})
}

func TestStoresOfOtherShardsNeverBothWrite(t *testing.T) {
	t.Parallel()
	faults := map[string]dynamomem.Fault{
		"well":        dynamomem.None,
		"lost":        dynamomem.Lost(dynamomem.ErrCut),
		"answer lost": dynamomem.LostAnswer(dynamomem.ErrCut),
		"doubled":     dynamomem.Duplicate(dynamomem.ErrCut),
		"late":        dynamomem.Late(clock.System, 20*time.Second, dynamomem.ErrCut),
	}
	for name, fault := range faults {
		for _, n := range [][2]int{{1, 4}, {4, 1}, {4, 16}} {
			t.Run(fmt.Sprint(name, n), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					server := newMem()
					first, client := shardedStore(t, server, n[0])
					puts := 0
					client.Inject(func(ctx context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
						if c.Operation == "PutItem" {
							if puts++; puts == 1 { // that of the layout
								return fault(ctx, c, apply)
							}
						}
						return apply()
					})
					_, err := first.AtomicPut(t.Context(), "key")
					require.NoError(t, err)
					second, _ := shardedStore(t, server, n[1])
					_, err = second.AtomicPut(t.Context(), "key")
					requireRefused(t, err, n[0], n[1])
					_, err = second.List(t.Context(), "")
					requireRefused(t, err, n[0], n[1])
					client.Wait()
					third, _ := shardedStore(t, server, n[0])
					_, err = third.Get(t.Context(), "key")
					require.NoError(t, err)
				})
			})
		}
	}
}

// The first Store's layout write lands, or does not, after the second has
// looked: whose write lands first decides for both.
func TestALayoutWriteThatLandsLateDecidesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		first, client := shardedStore(t, server, 4)
		client.Inject(func(ctx context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
			if c.Operation == "PutItem" {
				return dynamomem.Late(clock.System, time.Minute, dynamomem.ErrCut)(ctx, c, apply)
			}
			return apply()
		})
		_, err := first.AtomicPut(t.Context(), "key")
		requireOnly(t, err, kv.ErrUnavailable) // the pair itself was not sent
		second, _ := shardedStore(t, server, 1)
		_, err = second.AtomicPut(t.Context(), "key")
		require.NoError(t, err)
		client.Wait()
		client.Inject(nil)
		_, err = first.AtomicPut(t.Context(), "key")
		requireRefused(t, err, 1, 4)
	})
}

func TestTwoStoresAtTheirFirstUseAtOnceAgree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		first, client := shardedStore(t, server, 4)
		second, _ := shardedStore(t, server, 2)
		client.Inject(func(_ context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
			if c.Operation == "PutItem" && c.Number <= 3 { // the second is faster, after the first has looked
				require.NoError(t, second.Put(t.Context(), "key"))
			}
			return apply()
		})
		_, err := first.AtomicPut(t.Context(), "key")
		requireRefused(t, err, 2, 4)
	})
}

func TestAShardedStoreRefusesPairsOfStoresWithoutALayout(t *testing.T) {
	t.Parallel()
	server := newMem()
	old, _ := memStore(t, server) // as a version before the layout row
	require.NoError(t, old.Put(t.Context(), "key"))
	s, _ := shardedStore(t, server, 4)
	requireRefused(t, s.Put(t.Context(), "other"), 1, 4)
	_, err := s.Get(t.Context(), "key")
	requireRefused(t, err, 1, 4)
	require.NoError(t, old.Delete(t.Context(), "key")) // what is left is a tombstone
	require.NoError(t, s.Put(t.Context(), "other"))
}

func TestAnOldTableWithoutALayoutKeepsWorking(t *testing.T) {
	t.Parallel()
	server := newMem()
	old, _ := memStore(t, server)
	require.NoError(t, old.Put(t.Context(), "key"))
	s, client := shardedStore(t, server, 1)
	require.NoError(t, s.Put(t.Context(), "other"))
	require.Equal(t, 3, client.Requests(), "the look at the layout, its write, and ours")
	pairs, err := s.List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, pairs, 2, "the layout is no pair")
	pairs, err = old.List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, pairs, 2)
}

func TestALayoutCostsOneReadPerStore(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 4} {
		synctest.Test(t, func(t *testing.T) {
			server := newMem()
			first, _ := shardedStore(t, server, n)
			require.NoError(t, first.Put(t.Context(), "key"))
			s, client := shardedStore(t, server, n)
			for i := range 3 {
				_, err := s.Get(t.Context(), "key")
				require.NoError(t, err)
				require.NoError(t, s.Put(t.Context(), "key"))
				require.Equal(t, 1+2*(i+1), client.Requests())
			}
		})
	}
}

func TestAReadOfANewPartitionFixesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		reader, client := shardedStore(t, server, 1)
		for range 3 {
			_, err := reader.List(t.Context(), "")
			require.NoError(t, err)
		}
		require.Equal(t, 4, client.Requests(), "one look")
		writer, _ := shardedStore(t, server, 4)
		require.NoError(t, writer.Put(t.Context(), "key"))
		require.ErrorIs(t, reader.Put(t.Context(), "key"), dynamokv.ErrShards, "a write looks")
		reader, _ = shardedStore(t, newMem(), 1)
		_, err := reader.List(t.Context(), "")
		require.NoError(t, err)
	})
}

func TestAReaderOfANewPartitionLooksAgainAfterAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		reader, _ := shardedStore(t, server, 1)
		_, err := reader.List(t.Context(), "")
		require.NoError(t, err)
		writer, _ := shardedStore(t, server, 4)
		require.NoError(t, writer.Put(t.Context(), "key"))
		time.Sleep(time.Minute)
		_, err = reader.List(t.Context(), "")
		requireRefused(t, err, 4, 1)
	})
}

func TestTheKeyOfTheLayoutIsTheDrivers(t *testing.T) {
	t.Parallel()
	s, client := shardedStore(t, newMem(), 1)
	require.ErrorIs(t, s.Put(t.Context(), "\x00layout"), kv.ErrInvalidKey)
	require.Zero(t, client.Requests())
}

func TestBadShardsAreRefused(t *testing.T) {
	t.Parallel()
	for _, options := range [][]dynamokv.Option{
		{dynamokv.WithShards(0)},
		{dynamokv.WithShards(257)},
		{dynamokv.WithPartition("a#1")},
		{dynamokv.WithShards(256), dynamokv.WithPartition(strings.Repeat("a", 2045))},
	} {
		_, err := dynamokv.New(newMem().Client(), "table", options...)
		require.ErrorIs(t, err, kv.ErrInvalidOption)
	}
	_, err := dynamokv.New(newMem().Client(), "table", dynamokv.WithPartition("a#"), dynamokv.WithShards(256))
	require.NoError(t, err)
}

// The hash is part of the data's format.
func TestKeysAreSpreadAsTheyEverWere(t *testing.T) {
	t.Parallel()
	server := newMem()
	s, _ := shardedStore(t, server, 16)
	const keys = 16_000
	counts := map[string]int{}
	for i := range keys {
		counts[dynamokv.ShardOf(s, fmt.Sprintf("lease/pool/x/%06d", 2*i))]++
	}
	require.Len(t, counts, 16)
	for shard, n := range counts {
		require.InDelta(t, keys/16, n, keys/16/5, shard)
	}
	require.NoError(t, s.Put(t.Context(), "lease/orders"))
	require.NotNil(t, server.Item("table", "dynalock#7", "lease/orders"))
	require.Equal(t, "16", server.Item("table", "dynalock", "\x00layout")["shards"].(*types.AttributeValueMemberN).Value)
}
