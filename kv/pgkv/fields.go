package pgkv

import (
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/dynalock/dynalock/kv"
)

// A field is stored as its type, in the letters of DynamoDB, and its value as text.
const (
	typeString = "S"
	typeNumber = "N"
	typeBytes  = "B"
)

// jsonb cannot hold U+0000. U+001A escapes it, and itself.
var (
	escape   = strings.NewReplacer("\x00", "\x1a0", "\x1a", "\x1a1")
	unescape = strings.NewReplacer("\x1a0", "\x00", "\x1a1", "\x1a")
)

// encodeField writes a field's value: ["S", "text"], ["N", "12"], ["B", "base64"].
func encodeField(value any) [2]string {
	switch v := value.(type) {
	case string:
		return [2]string{typeString, escape.Replace(v)}
	case []byte:
		return [2]string{typeBytes, base64.StdEncoding.EncodeToString(v)}
	default:
		return [2]string{typeNumber, kv.FormatNumber(v)}
	}
}

// encodeFields writes fields as an object of their names. None are NULL.
func encodeFields(fields kv.Fields) (sql.NullString, error) {
	if len(fields) == 0 {
		return sql.NullString{}, nil
	}
	tagged := make(map[string][2]string, len(fields))
	for name, value := range fields {
		tagged[escape.Replace(name)] = encodeField(value)
	}
	text, err := json.Marshal(tagged)
	return sql.NullString{String: string(text), Valid: true}, err
}

// decodeFields reads what encodeFields wrote.
func decodeFields(text string) (kv.Fields, error) {
	if text == "" {
		return nil, nil
	}
	var tagged map[string][2]string
	if err := json.Unmarshal([]byte(text), &tagged); err != nil {
		return nil, fmt.Errorf("fields are not an object of types and values: %w", err)
	}
	fields := make(kv.Fields, len(tagged))
	for name, field := range tagged {
		name = unescape.Replace(name)
		var err error
		switch field[0] {
		case typeString:
			fields[name] = unescape.Replace(field[1])
		case typeBytes:
			fields[name], err = base64.StdEncoding.DecodeString(field[1])
		case typeNumber:
			fields[name], err = kv.ParseNumber(field[1])
		default:
			err = fmt.Errorf("type %q is unknown", field[0])
		}
		if err != nil {
			return nil, fmt.Errorf("field %q: %w", name, err)
		}
	}
	return fields, nil
}
