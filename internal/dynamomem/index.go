package dynamomem

import (
	"cmp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// Index is a secondary index of a table: a local one if its partition key is
// the table's, else a global one. Rows without its keys are not in it.
type Index struct {
	Name         string
	PartitionKey string
	// PartitionType is the type of the partition key's values, S by default.
	PartitionType types.ScalarAttributeType
	// SortKey is a string's name, "" for none.
	SortKey string
	// KeysOnly: the index holds nothing of a row but the keys, its own and the
	// table's. Else it holds all.
	KeysOnly bool
}

// index returns what a query goes by: an index of the table or, without a name, the table itself.
func (t *table) index(name *string) (Index, error) {
	if name == nil {
		return Index{PartitionKey: t.partitionKey, SortKey: t.sortKey}, nil
	}
	for _, x := range t.indexes {
		if x.Name == *name {
			return x, nil
		}
	}
	return Index{}, invalid("the table does not have the specified index: %s", aws.ToString(name))
}

// global reports whether x is a global index of t.
func (t *table) global(x Index) bool { return x.PartitionKey != t.partitionKey }

// checkIndexKeys refuses a row that has an index's key of another type, or an empty one.
func (t *table) checkIndexKeys(row item) error {
	for _, x := range t.indexes {
		for name, want := range map[string]types.ScalarAttributeType{x.PartitionKey: cmp.Or(x.PartitionType,
			types.ScalarAttributeTypeS), x.SortKey: types.ScalarAttributeTypeS} {
			if v := row[name]; v != nil && !keyValue(v, want) {
				return invalid("type mismatch or empty value for index key %s of index %s, want %s", name, x.Name, want)
			}
		}
	}
	return nil
}

// keyValue reports whether v can be a key of the type.
func keyValue(v types.AttributeValue, want types.ScalarAttributeType) bool {
	switch v := v.(type) {
	case *types.AttributeValueMemberS:
		return want == types.ScalarAttributeTypeS && v.Value != ""
	case *types.AttributeValueMemberB:
		return want == types.ScalarAttributeTypeB && len(v.Value) > 0
	case *types.AttributeValueMemberN:
		return want == types.ScalarAttributeTypeN
	}
	return false
}

// entry is a row's place in an index.
type entry struct {
	sort string
	key  rowKey
}

func (e entry) compare(other entry) int {
	return cmp.Or(strings.Compare(e.sort, other.sort), strings.Compare(e.key.partition, other.key.partition),
		strings.Compare(e.key.sort, other.key.sort))
}

// entryOf returns the place of a row in x, whose keys the row must have.
func (x Index) entryOf(key rowKey, row item) (entry, bool) {
	e := entry{key: key}
	if x.SortKey != "" {
		sort, ok := row[x.SortKey].(*types.AttributeValueMemberS)
		if !ok {
			return e, false
		}
		e.sort = sort.Value
	}
	return e, row[x.PartitionKey] != nil
}

// partition returns what x holds of a partition, in order.
func (t *table) partition(x Index, value types.AttributeValue) []entry {
	var entries []entry
	for key, row := range t.rows {
		if e, ok := x.entryOf(key, row); ok && equal(row[x.PartitionKey], value) {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, entry.compare)
	return entries
}

// keyNames are the attributes that make a position in x.
func (t *table) keyNames(x Index) []string {
	names := []string{t.partitionKey, t.sortKey}
	for _, name := range []string{x.PartitionKey, x.SortKey} {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
