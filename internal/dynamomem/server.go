// Package dynamomem is as much of DynamoDB as package dynamokv uses, in memory:
// for tests that need neither java nor real time, and that want to lose, delay
// and double requests below the driver.
//
// A [Server] holds the tables; its Clients have the methods of dynamokv.Client,
// with the SDK's types and errors, and its Transport is for an SDK client whose
// requests and answers a test tampers with as they are on the wire. Expressions
// are parsed and evaluated as they are sent. Whatever this package does not
// understand (an input field, a function, a bare attribute name) is answered by
// a ValidationException: it never passes in silence.
//
// A [Throughput] makes it throttle as a hot partition does. Without one it never does.
//
// What it does not model: eventual consistency, also of global indexes,
// reserved words, signatures, the units that writes use of an index, a table's
// capacity as a whole, and two transactions that get in each other's way. No
// mutex is held while a fault waits, so all of it works inside testing/synctest.
package dynamomem

import (
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/internal/clock"
)

type item = map[string]types.AttributeValue

// attrExpires is the attribute that the time to live of every table is on.
const attrExpires = "expires"

// Server is a set of tables. Make it with New. It is safe for concurrent use,
// and holds nothing that needs closing.
type Server struct {
	mu     sync.Mutex
	tables map[string]*table
	tokens map[string]bool // of the transactions that were applied

	throughput Throughput
	clock      clock.Clock // nil: no limits
	meters     map[meterKey]*meter
}

// New returns a Server without tables.
func New() *Server { return &Server{tables: map[string]*table{}, tokens: map[string]bool{}} }

// CreateTable makes an empty table whose keys are strings of these names, with
// indexes. It replaces a table of the same name.
func (s *Server) CreateTable(name, partitionKey, sortKey string, indexes ...Index) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables[name] = &table{partitionKey: partitionKey, sortKey: sortKey, indexes: indexes, rows: map[rowKey]item{}}
}

// Sweep removes the rows of all tables whose attribute "expires", in Unix
// seconds, has passed at now, and returns how many.
func (s *Server) Sweep(now time.Time) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit, swept := rat(now.Unix()), 0
	for _, t := range s.tables {
		for key, row := range t.rows {
			if n, ok := row[attrExpires].(*types.AttributeValueMemberN); ok && mustNumber(n.Value).Cmp(limit) < 0 {
				delete(t.rows, key)
				swept++
			}
		}
	}
	return swept
}

// Item returns a copy of a row as it is in the table, nil if there is none.
func (s *Server) Item(tableName, partition, sort string) map[string]types.AttributeValue {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.tables[tableName]; t != nil {
		return cloneItem(t.rows[rowKey{partition, sort}])
	}
	return nil
}

// table is guarded by its Server's mutex. Rows are never changed, only replaced.
type table struct {
	partitionKey, sortKey string
	indexes               []Index
	rows                  map[rowKey]item
}

type rowKey struct{ partition, sort string }

const (
	maxPartitionSize = 2048
	maxSortSize      = 1024
	maxItemSize      = 400 << 10
	maxPageSize      = 1 << 20
)

// keyOf reads the primary key out of it.
func (t *table) keyOf(it item) (rowKey, error) {
	var parts [2]string
	for i, name := range []string{t.partitionKey, t.sortKey} {
		v, ok := it[name].(*types.AttributeValueMemberS)
		if !ok {
			return rowKey{}, invalid("the key attribute %q is missing or not a string", name)
		}
		if limit := []int{maxPartitionSize, maxSortSize}[i]; v.Value == "" || len(v.Value) > limit {
			return rowKey{}, invalid("the key attribute %q has %d bytes, want 1 to %d", name, len(v.Value), limit)
		}
		parts[i] = v.Value
	}
	return rowKey{parts[0], parts[1]}, nil
}

// onlyKey reads an item that must be a primary key and nothing else.
func (t *table) onlyKey(it item) (rowKey, error) {
	if len(it) != 2 {
		return rowKey{}, invalid("the provided key element does not match the schema")
	}
	return t.keyOf(it)
}

// keyItem is the inverse.
func (t *table) keyItem(k rowKey) item {
	return item{
		t.partitionKey: &types.AttributeValueMemberS{Value: k.partition},
		t.sortKey:      &types.AttributeValueMemberS{Value: k.sort},
	}
}
