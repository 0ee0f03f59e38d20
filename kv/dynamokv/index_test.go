package dynamokv_test

import (
	"cmp"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamolocal"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// indexes are those of the tables of the tests below.
var indexes = []dynamomem.Index{
	{Name: "by-rank", PartitionKey: "id", SortKey: "rank"},
	{Name: "rank-keys", PartitionKey: "id", SortKey: "rank", KeysOnly: true},
	{Name: "by-owner", PartitionKey: "owner", SortKey: "rank"},
	{Name: "owner-keys", PartitionKey: "owner", SortKey: "rank", KeysOnly: true},
	{Name: "by-number", PartitionKey: "number", PartitionType: types.ScalarAttributeTypeN, SortKey: "rank"},
	{Name: "by-blob", PartitionKey: "blob", PartitionType: types.ScalarAttributeTypeB, SortKey: "rank"},
	{Name: "number-only", PartitionKey: "number", PartitionType: types.ScalarAttributeTypeN},
}

// listings are a listing by each of them that a Store can read.
var listings = []struct {
	prefix  string
	options []kv.ReadOption
	// unordered: what has no sort key comes in any order.
	unordered bool
}{
	{"r", []kv.ReadOption{kv.WithLocalIndex("by-rank", "rank")}, false},
	{"r1", []kv.ReadOption{kv.WithLocalIndex("by-rank", "rank"), kv.EventuallyConsistent()}, false},
	{"r", []kv.ReadOption{kv.WithGlobalIndex("by-owner", "owner", "me", "rank"), kv.EventuallyConsistent()}, false},
	{"", []kv.ReadOption{kv.WithGlobalIndex("by-number", "number", 7, "rank"), kv.EventuallyConsistent()}, false},
	{"", []kv.ReadOption{kv.WithGlobalIndex("by-number", "number", -1.5, "rank"), kv.EventuallyConsistent()}, false},
	{"r", []kv.ReadOption{kv.WithGlobalIndex("by-blob", "blob", []byte{0, 255}, "rank"), kv.EventuallyConsistent()},
		false},
	{"", []kv.ReadOption{kv.WithGlobalIndex("number-only", "number", 7, ""), kv.EventuallyConsistent()}, true},
}

// indexedRig makes a rig on a table with the indexes: on the emulator, or on a server in memory.
func indexedRig(t *testing.T, emulator bool, options ...dynamokv.Option) *rig {
	t.Helper()
	if !emulator {
		server := dynamomem.New()
		server.CreateTable("table", "id", "name", indexes...)
		r := &rig{wire: &wire{base: server.Transport()}, partition: "a", endpoint: "http://dynamodb.invalid", table: "table"}
		return r.open(t, options)
	}
	r := &rig{wire: &wire{base: sharedTransport}, partition: "a", endpoint: dynamolocal.Endpoint(t),
		table: "indexed-" + rand.Text()}
	createIndexed(t, newClient(r.endpoint, r.wire), r.table)
	return r.open(t, append([]dynamokv.Option{dynamokv.WithClock(patientClock{clock.System})}, options...))
}

func createIndexed(t *testing.T, client *dynamodb.Client, table string) {
	t.Helper()
	in := &dynamodb.CreateTableInput{TableName: aws.String(table), BillingMode: types.BillingModePayPerRequest,
		KeySchema: keySchema("id", "name")}
	kinds := map[string]types.ScalarAttributeType{"name": "S", "rank": "S"}
	for _, x := range indexes {
		kinds[x.PartitionKey] = cmp.Or(x.PartitionType, "S")
		projection := &types.Projection{ProjectionType: types.ProjectionTypeAll}
		if x.KeysOnly {
			projection.ProjectionType = types.ProjectionTypeKeysOnly
		}
		name, schema := aws.String(x.Name), keySchema(x.PartitionKey, x.SortKey)
		if x.PartitionKey == "id" {
			in.LocalSecondaryIndexes = append(in.LocalSecondaryIndexes,
				types.LocalSecondaryIndex{IndexName: name, KeySchema: schema, Projection: projection})
		} else {
			in.GlobalSecondaryIndexes = append(in.GlobalSecondaryIndexes,
				types.GlobalSecondaryIndex{IndexName: name, KeySchema: schema, Projection: projection})
		}
	}
	for name, kind := range kinds {
		in.AttributeDefinitions = append(in.AttributeDefinitions,
			types.AttributeDefinition{AttributeName: aws.String(name), AttributeType: kind})
	}
	_, err := client.CreateTable(t.Context(), in)
	require.NoError(t, err)
	require.NoError(t, dynamokv.EnsureTable(t.Context(), client, table))
}

func keySchema(partition, sort string) []types.KeySchemaElement {
	schema := []types.KeySchemaElement{{AttributeName: aws.String(partition), KeyType: types.KeyTypeHash}}
	if sort != "" {
		schema = append(schema, types.KeySchemaElement{AttributeName: aws.String(sort), KeyType: types.KeyTypeRange})
	}
	return schema
}

// onBoth runs a test on a server in memory and on the emulator.
func onBoth(t *testing.T, test func(t *testing.T, emulator bool)) {
	t.Parallel()
	for name, emulator := range map[string]bool{"in memory": false, "on emulator": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, emulator)
		})
	}
}

func TestListingByIndexes(t *testing.T) {
	onBoth(t, func(t *testing.T, emulator bool) {
		s := indexedRig(t, emulator)
		b := *s
		b.partition = "b"
		other := b.open(t, nil)
		for i, key := range []string{"k1", "k2", "k3", "k4"} {
			fields := kv.WithFields(kv.Fields{"owner": "me", "rank": fmt.Sprint("r1", 9-i), "number": 7, "blob": []byte{0, 255}})
			require.NoError(t, s.Put(t.Context(), key, fields))
			require.NoError(t, other.Put(t.Context(), "x"+key, fields))
		}
		require.NoError(t, s.Put(t.Context(), "not in an index"))
		require.NoError(t, s.Put(t.Context(), "other values",
			kv.WithFields(kv.Fields{"owner": "you", "number": -1.5, "blob": []byte{0}})))
		require.NoError(t, s.Delete(t.Context(), "k2"))
		for _, l := range listings {
			want := []string{"k4", "k3", "k1"}
			if _, index := describe(l.options); index.PartitionValue == -1.5 {
				want = nil // it is in number-only
			}
			for _, more := range [][]kv.ReadOption{nil, {kv.WithoutValues()}, {kv.Descending()}} {
				got := keysByPages(t, s, l.prefix, append(l.options[:len(l.options):len(l.options)], more...)...)
				if settings, _ := describe(more); settings.Descending {
					slices.Reverse(got)
				}
				if l.unordered {
					require.ElementsMatch(t, want, got)
				} else {
					require.Equal(t, want, got)
				}
			}
		}
	})
}

// describe says what options of a listing add up to.
func describe(options []kv.ReadOption) (kv.ReadSettings, kv.Index) {
	settings, err := kv.ListSettings("", options)
	if err != nil || settings.Index == nil {
		return settings, kv.Index{}
	}
	return settings, *settings.Index
}

// keysByPages lists by pages of one pair.
func keysByPages(t *testing.T, s kv.Store, prefix string, options ...kv.ReadOption) []string {
	t.Helper()
	var keys []string
	for p, err := range kv.All(t.Context(), s, prefix, append(options, kv.WithLimit(1))...) {
		require.NoError(t, err)
		keys = append(keys, p.Key)
	}
	return keys
}

func TestWhatAnIndexCannotDo(t *testing.T) {
	onBoth(t, func(t *testing.T, emulator bool) {
		s := indexedRig(t, emulator)
		ctx := t.Context()
		require.NoError(t, s.Put(ctx, "k", kv.WithFields(kv.Fields{"owner": "me", "rank": "r"})))
		_, err := s.List(ctx, "r", kv.WithGlobalIndex("by-owner", "owner", "me", "rank"))
		require.ErrorIs(t, err, kv.ErrUnsupported, "strongly consistent")
		_, err = s.List(ctx, "r", kv.WithGlobalIndex("by-owner", "owner", "me", ""), kv.EventuallyConsistent())
		require.ErrorIs(t, err, kv.ErrInvalidOption)
		_, err = s.List(ctx, "r", kv.WithLocalIndex("no such", "rank"))
		require.ErrorContains(t, err, "no such")
		_, err = s.AtomicPut(ctx, "new", kv.WithFields(kv.Fields{"number": "seven"}))
		require.ErrorContains(t, err, "ype mismatch", "of another type than the index's key")

		for _, option := range []kv.ReadOption{
			kv.WithLocalIndex("rank-keys", "rank"), kv.WithGlobalIndex("owner-keys", "owner", "me", "rank"),
		} {
			for _, more := range [][]kv.ReadOption{nil, {kv.WithoutValues()}} {
				_, err = s.List(ctx, "r", append(more, option, kv.EventuallyConsistent())...)
				require.ErrorContains(t, err, "-keys does not project")
			}
		}
	})
}

func TestAnIndexThatHoldsAPart(t *testing.T) {
	t.Parallel()
	s, _ := offlineStore(t, func(_ int, r *http.Request) (*http.Response, error) {
		return answer(r, 200,
			`{"Count":1,"Items":[{"id":{"S":"dynalock"},"name":{"S":"k"},"rank":{"S":"r"},"version":{"N":"7"}}]}`), nil
	})
	_, err := s.List(t.Context(), "r", kv.WithLocalIndex("part", "rank"))
	require.ErrorIs(t, err, kv.ErrFormat)
	require.ErrorContains(t, err, `row of key "k"`)
	require.ErrorContains(t, err, `index "part", whose projection must be ALL`)
}

// TestIndexesInMemoryAndEmulatorAgree does for indexes what
// TestInMemoryAndEmulatorAgree does for the rest.
func TestIndexesInMemoryAndEmulatorAgree(t *testing.T) {
	t.Parallel()
	clk := newMovedClock()
	stores := []kv.Store{indexedRig(t, true, dynamokv.WithClock(clk)), indexedRig(t, false, dynamokv.WithClock(clk))}
	for i := range steps(80) {
		clk.now = clk.now.Add(time.Second)
		var results []string
		for _, s := range stores {
			results = append(results, indexStep(t, s, mathrand.New(mathrand.NewPCG(uint64(i), 2))))
		}
		require.Equal(t, results[0], results[1], "step %d", i)
	}
}

// indexStep writes or deletes something, and lists by one of the indexes.
func indexStep(t *testing.T, s kv.Store, r *mathrand.Rand) string {
	key := []string{"a", "b", "c", "d", "e", "f"}[r.IntN(6)]
	fields := kv.Fields{}
	for _, f := range []struct {
		name   string
		values []any
	}{{"owner", []any{"me", "you"}}, {"number", []any{7, 7.0, -1.5}}, {"blob", []any{[]byte{0, 255}, []byte{1}}}} {
		if n := r.IntN(2 * len(f.values)); n < len(f.values) {
			fields[f.name] = f.values[n]
		}
	}
	if r.IntN(4) > 0 {
		fields["rank"] = fmt.Sprint("r", r.IntN(3), key)
	}
	var text string
	if r.IntN(4) == 0 {
		text = fmt.Sprintln("delete", key, outcome(s.Delete(t.Context(), key)))
	} else {
		text = fmt.Sprintln("put", key,
			outcome(s.Put(t.Context(), key, kv.WithFields(fields), kv.WithTTL(time.Duration(1+r.IntN(60))*time.Second))))
	}
	for _, l := range listings {
		var told []string
		for p, err := range kv.All(t.Context(), s, l.prefix,
			append(l.options[:len(l.options):len(l.options)], kv.WithLimit(2))...) {
			require.NoError(t, err)
			told = append(told, fmt.Sprintf("%s@%d %v", p.Key, p.Version, p.Fields))
		}
		if l.unordered {
			slices.Sort(told)
		}
		text += fmt.Sprintln(l.prefix, told)
	}
	return text
}
