package dynastore

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/kv"
)

// Names of the attributes of a row. Writer is the one that only dynamokv's rows
// have.
const (
	attrID       = "id"
	attrName     = "name"
	attrVersion  = "version"
	attrPayload  = "payload"
	attrExpires  = "expires"
	attrWriter   = "writer"
	attrDeadline = "deadline"
)

// Encoding says how values were written. All that a program wrote in one way have
// the same.
type Encoding int

const (
	// Text is that of WriteWithString.
	Text Encoding = iota + 1
	// Base64 is that of WriteWithBytes.
	Base64
)

// Row is a pair as the table has it.
type Row struct {
	// Key is the pair's key.
	Key string
	// Version is the row's. It begins at 1 again after a delete.
	Version uint64
	// Payload is the value as it is stored.
	Payload string
	// Expires is when the row expires, in whole seconds, the zero time: never.
	Expires time.Time
	// Fields are the other attributes, nil: none.
	Fields kv.Fields
}

// Value returns the value that was written.
func (r *Row) Value(e Encoding) ([]byte, error) {
	switch e {
	case Text:
		return []byte(r.Payload), nil
	case Base64:
		value, err := base64.StdEncoding.DecodeString(r.Payload)
		if err != nil {
			return nil, problem(r.Key, "payload %.40q is not base64: %v", r.Payload, err)
		}
		return value, nil
	}
	return nil, fmt.Errorf("dynastore: encoding %d, want Text or Base64: %w", e, kv.ErrInvalidOption)
}

// live reports whether the row has not expired at now.
func (r *Row) live(now time.Time) bool { return r.Expires.IsZero() || now.Before(r.Expires) }

type item = map[string]types.AttributeValue

// taken reports whether the row is one of dynamokv's.
func taken(it item) bool { return it[attrWriter] != nil }

// decode reads a row that is not taken.
func decode(it item) (*Row, error) {
	key, ok := it[attrName].(*types.AttributeValueMemberS)
	if !ok {
		return nil, problem("", "attribute %q is a %T, want a string", attrName, it[attrName])
	}
	r := &Row{Key: key.Value}
	var err error
	if r.Version, err = number(it, r.Key, attrVersion); err != nil {
		return nil, err
	}
	if it[attrExpires] != nil {
		seconds, err := number(it, r.Key, attrExpires)
		if err != nil {
			return nil, err
		}
		r.Expires = time.Unix(int64(seconds), 0)
	}
	switch payload := it[attrPayload].(type) {
	case *types.AttributeValueMemberS:
		r.Payload = payload.Value
	case nil: // an empty value
	default:
		return nil, problem(r.Key, "attribute %q is a %T, want a string", attrPayload, payload)
	}
	return r, r.decodeFields(it)
}

func (r *Row) decodeFields(it item) error {
	for name, value := range it {
		switch name {
		case attrID, attrName, attrVersion, attrPayload, attrExpires:
			continue
		}
		text, ok := value.(*types.AttributeValueMemberS)
		if !ok {
			return problem(r.Key, "attribute %q is a %T, want a string", name, value)
		}
		if r.Fields == nil {
			r.Fields = kv.Fields{}
		}
		r.Fields[name] = text.Value
	}
	return nil
}

// number reads a whole number, up to the greatest int64.
func number(it item, key, name string) (uint64, error) {
	n, ok := it[name].(*types.AttributeValueMemberN)
	if !ok {
		return 0, problem(key, "attribute %q is a %T, want a number", name, it[name])
	}
	value, err := strconv.ParseUint(n.Value, 10, 63)
	if err != nil {
		return 0, problem(key, "attribute %q is %q, want a whole number", name, n.Value)
	}
	return value, nil
}

func problem(key, format string, args ...any) error {
	return &kv.FormatError{Key: key, Problem: fmt.Sprintf(format, args...)}
}
