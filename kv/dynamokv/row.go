package dynamokv

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
)

// item is a row as the SDK has it.
type item = map[string]types.AttributeValue

// row is a decoded item.
type row struct {
	pair    *kv.KVPair // without value and fields if the row is a tombstone
	version uint64
	writer  string
	deleted bool
}

// live reports whether the row is neither absent nor dead at now.
func (r *row) live(now time.Time) bool { return r != nil && !r.deleted && r.pair.Live(now) }

// current returns the pair if it is live at now, else nil.
func (r *row) current(now time.Time) *kv.KVPair {
	if !r.live(now) {
		return nil
	}
	return r.pair
}

// versionOf returns the row's version, 0 if there is no row.
func (r *row) versionOf() uint64 {
	if r == nil {
		return 0
	}
	return r.version
}

// decode reads it strictly; nil for no item. whole is false for a projection
// without payload and fields.
func (s *Store) decode(key string, it item, whole bool) (*row, error) {
	if it == nil {
		return nil, nil
	}
	d := decoder{key: key, it: it}
	r := &row{version: d.number(attrVersion, true)}
	if whole {
		r.writer = d.text(attrWriter)
	}
	r.deleted = d.flag(attrDeleted)
	deadline := d.deadline()
	if r.deleted {
		r.pair = kv.NewPair(key, r.version, nil, time.Time{}, nil)
		return r, d.err
	}
	var value []byte
	var fields kv.Fields
	if whole {
		value, fields = d.payload(), d.fields(s.idName, s.nameName)
	}
	r.pair = kv.NewPair(key, r.version, value, deadline, fields)
	return r, d.err
}

// decoder keeps the first problem of an item.
type decoder struct {
	key string
	it  item
	err error
}

func (d *decoder) problem(format string, args ...any) {
	if d.err == nil {
		d.err = &kv.FormatError{Key: d.key, Problem: fmt.Sprintf(format, args...)}
	}
}

func (d *decoder) number(name string, required bool) uint64 {
	switch v := d.it[name].(type) {
	case *types.AttributeValueMemberN:
		n, err := strconv.ParseUint(v.Value, 10, 64)
		if err != nil || (required && (n == 0 || n == math.MaxUint64)) {
			d.problem("attribute %q is %q, want a whole number in range", name, v.Value)
		}
		return n
	case nil:
		if required {
			d.problem("attribute %q is missing", name)
		}
	default:
		d.problem("attribute %q is a %T, want a number", name, v)
	}
	return 0
}

// deadline reads the expiry, which is the zero time if the row has none.
func (d *decoder) deadline() time.Time {
	ms := d.number(attrDeadline, false)
	if ms > math.MaxInt64 {
		d.problem("attribute %q is %d, which is no time", attrDeadline, ms)
		return time.Time{}
	}
	if _, ok := d.it[attrDeadline]; !ok {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms))
}

func (d *decoder) text(name string) string {
	v, ok := d.it[name].(*types.AttributeValueMemberS)
	if !ok {
		d.problem("attribute %q is missing or not a string", name)
		return ""
	}
	return v.Value
}

func (d *decoder) flag(name string) bool {
	v, ok := d.it[name]
	if !ok {
		return false
	}
	b, ok := v.(*types.AttributeValueMemberBOOL)
	if !ok || !b.Value {
		d.problem("attribute %q is neither absent nor true", name)
	}
	return true
}

func (d *decoder) payload() []byte {
	switch v := d.it[attrPayload].(type) {
	case *types.AttributeValueMemberS:
		return []byte(v.Value)
	case *types.AttributeValueMemberB:
		return v.Value
	case nil:
		d.problem("attribute %q is missing", attrPayload)
	default:
		d.problem("attribute %q is a %T, want a string or binary", attrPayload, v)
	}
	return nil
}

// fields reads the attributes that are not the driver's.
func (d *decoder) fields(keyNames ...string) kv.Fields {
	var fields kv.Fields
	for name, value := range d.it {
		switch name {
		case keyNames[0], keyNames[1], attrVersion, attrPayload, attrWriter, attrDeadline, attrExpires, attrDeleted:
			continue
		}
		v, err := decodeField(value)
		if err != nil {
			d.problem("field %q: %v", name, err)
			continue
		}
		if fields == nil {
			fields = kv.Fields{}
		}
		fields[name] = v
	}
	return fields
}

func decodeField(value types.AttributeValue) (any, error) {
	switch v := value.(type) {
	case *types.AttributeValueMemberS:
		return v.Value, nil
	case *types.AttributeValueMemberB:
		return append([]byte{}, v.Value...), nil
	case *types.AttributeValueMemberN:
		return kv.ParseNumber(v.Value)
	}
	return nil, fmt.Errorf("a %T is not a string, binary or number", value)
}

// encodeField is the inverse, for a normalized value.
func encodeField(value any) types.AttributeValue {
	switch v := value.(type) {
	case string:
		return stringAttr(v)
	case []byte:
		return &types.AttributeValueMemberB{Value: v}
	default:
		return &types.AttributeValueMemberN{Value: kv.FormatNumber(v)}
	}
}

func stringAttr(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func numberAttr[T int64 | uint64 | int](n T) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: fmt.Sprint(n)}
}

func trueAttr() types.AttributeValue { return &types.AttributeValueMemberBOOL{Value: true} }

func encodePayload(w *kv.WriteSettings) types.AttributeValue {
	if w.Text {
		return stringAttr(string(w.Value))
	}
	if w.Value == nil {
		return &types.AttributeValueMemberB{Value: []byte{}}
	}
	return &types.AttributeValueMemberB{Value: w.Value}
}

// keyOf is the primary key of the row of key.
func (s *Store) keyOf(key string) item {
	return item{s.idName: stringAttr(s.shard(s.shardOf(key))), s.nameName: stringAttr(key)}
}
