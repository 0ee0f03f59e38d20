package dynamokv_test

import (
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/kv/kvtest"
)

// openLocal opens Stores of one new partition on DynamoDB Local.
func openLocal(t *testing.T) func(*testing.T, int) *dynamokv.Store {
	endpoint, table := sharedTable(t)
	partition := rand.Text()
	return func(t *testing.T, n int) *dynamokv.Store {
		s, err := dynamokv.New(newClient(endpoint, &wire{base: sharedTransport}), table, dynamokv.WithPartition(partition),
			dynamokv.WithShards(n), dynamokv.WithClock(patientClock{clock.System}))
		require.NoError(t, err)
		return s
	}
}

func TestContractOnShards(t *testing.T) {
	open := openLocal(t)
	kvtest.Run(t, kvtest.Harness{
		Open:   func(t *testing.T) kv.Store { return open(t, 4) },
		Second: func(t *testing.T, _ kv.Store) kv.Store { return open(t, 4) },
	})
}

func TestStoresOfOtherShardsNeverBothWriteOnTheEmulator(t *testing.T) {
	t.Parallel()
	for _, n := range [][2]int{{1, 4}, {4, 1}, {4, 16}} {
		open := openLocal(t)
		_, err := open(t, n[0]).AtomicPut(t.Context(), "key")
		require.NoError(t, err)
		_, err = open(t, n[1]).AtomicPut(t.Context(), "key")
		requireRefused(t, err, n[0], n[1])
		pairs, err := open(t, n[0]).List(t.Context(), "")
		require.NoError(t, err)
		require.Len(t, pairs, 1)
	}
}

// keysOf are the keys of pairs.
func keysOf(pairs []*kv.KVPair) []string {
	keys := []string{}
	for _, p := range pairs {
		keys = append(keys, p.Key)
	}
	return keys
}

// paged lists by pages of limit pairs, 0: the driver's.
func paged(t *testing.T, s kv.Store, prefix string, limit int, options []kv.ReadOption) []string {
	keys := []string{}
	for token := ""; ; {
		more := append([]kv.ReadOption{kv.WithStartKey(token)}, options...)
		if limit > 0 {
			more = append(more, kv.WithLimit(limit))
		}
		page, err := s.ListPage(t.Context(), prefix, more...)
		require.NoError(t, err)
		if limit > 0 {
			require.LessOrEqual(t, len(page.Pairs), limit)
		}
		keys = append(keys, keysOf(page.Pairs)...)
		if token = page.Next; token == "" {
			return keys
		}
	}
}

// TestListingsOfShardsAreThoseOfOneShard writes the same to both, and lists it
// in every way. On two shards each has so many dead rows in a row that a query
// finds less than it may. More shards have fewer, as they take more queries.
func TestListingsOfShardsAreThoseOfOneShard(t *testing.T) {
	t.Parallel()
	for shards, writes := range map[int]int{2: 900, 5: 300, 32: 100} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			t.Parallel()
			random := mathrand.New(mathrand.NewPCG(uint64(shards), 1))
			var stores []*dynamokv.Store
			for _, n := range []int{1, shards} {
				server := dynamomem.New()
				server.CreateTable("table", "id", "name", indexes...)
				s, _ := shardedStore(t, server, n)
				stores = append(stores, s)
			}
			for i := range writes {
				key := fmt.Sprintf("%c/%d", 'a'+rune(random.IntN(3)), random.IntN(writes+100))
				dead := random.IntN(10) > 0 && key[0] == 'a' // most
				fields := kv.Fields{"owner": "me", "rank": fmt.Sprintf("r%d/%d", random.IntN(3), i), "number": 7}
				for _, s := range stores {
					require.NoError(t, s.Put(t.Context(), key, kv.WithFields(fields)))
					if dead {
						require.NoError(t, s.Delete(t.Context(), key))
					}
				}
			}
			for _, by := range [][]kv.ReadOption{
				{}, {kv.WithLocalIndex("by-rank", "rank")},
				{kv.WithGlobalIndex("by-owner", "owner", "me", "rank"), kv.EventuallyConsistent()},
			} {
				prefixes := []string{"", "a", "b/1", "z"}
				if len(by) > 0 {
					prefixes = []string{"", "r", "r1"}
				}
				for _, prefix := range prefixes {
					for _, more := range [][]kv.ReadOption{{}, {kv.Descending()}, {kv.WithoutValues()},
						{kv.Descending(), kv.WithoutValues()}} {
						requireSameListings(t, stores, prefix, append(more, by...))
					}
				}
			}
			for _, descending := range [][]kv.ReadOption{{}, {kv.Descending()}} {
				options := append([]kv.ReadOption{kv.WithStartAfter("b/2")}, descending...)
				want, err := stores[0].List(t.Context(), "b", options...)
				require.NoError(t, err)
				got, err := stores[1].List(t.Context(), "b", options...)
				require.NoError(t, err)
				require.Equal(t, keysOf(want), keysOf(got))
			}
		})
	}
}

func requireSameListings(t *testing.T, stores []*dynamokv.Store, prefix string, options []kv.ReadOption) {
	t.Helper()
	all, err := stores[0].List(t.Context(), prefix, options...)
	require.NoError(t, err)
	want := keysOf(all)
	got, err := stores[1].List(t.Context(), prefix, options...)
	require.NoError(t, err)
	require.Equal(t, want, keysOf(got))
	got, err = stores[1].List(t.Context(), prefix, append(options, kv.WithLimit(9))...)
	require.NoError(t, err)
	require.Equal(t, want[:min(9, len(want))], keysOf(got))
	for _, limit := range []int{0, 17, 250} {
		require.Equal(t, want, paged(t, stores[1], prefix, limit, options), "pages of %d of %q", limit, prefix)
	}
}
