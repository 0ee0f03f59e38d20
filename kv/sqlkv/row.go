package sqlkv

import (
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/kv"
)

// What scanPair reads.
const (
	columns              = "key, version, expires, fields, value"
	columnsWithoutValues = "key, version, expires, NULL, x''"
)

// selectRow is the query of a row by its key.
func selectRow(columns string) string { return "SELECT " + columns + " FROM kv WHERE key = ?" }

// rowOf returns the pair that row shows, live or expired, nil if there is none.
func rowOf(row *sql.Row) (*kv.KVPair, error) {
	pair, err := scanPair(row)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return pair, err
}

// scanPair reads a row of columns.
func scanPair(row interface{ Scan(...any) error }) (*kv.KVPair, error) {
	var (
		key, value []byte
		version    int64
		expires    sql.NullInt64
		text       sql.NullString
	)
	if err := row.Scan(&key, &version, &expires, &text, &value); err != nil {
		if key != nil { // there is a row, and one of its values is of another type
			return nil, &kv.FormatError{Key: string(key), Problem: err.Error()}
		}
		return nil, fmt.Errorf("sqlkv: reading a row: %w", err)
	}
	if version <= 0 {
		return nil, &kv.FormatError{Key: string(key), Problem: fmt.Sprintf("version %d, want more than 0", version)}
	}
	fields, err := decodeFields(text.String)
	if err != nil {
		return nil, &kv.FormatError{Key: string(key), Problem: err.Error()}
	}
	var until time.Time
	if expires.Valid {
		until = time.UnixMilli(expires.Int64)
	}
	return kv.NewPair(string(key), uint64(version), value, until, fields), nil
}

// livePair returns row if it is a pair that has not expired, else nil.
func livePair(row *kv.KVPair, now time.Time) *kv.KVPair {
	if row == nil || !row.Live(now) {
		return nil
	}
	return row
}

// A field is stored as its type, in the letters of DynamoDB, and its value as text.
const (
	typeString = "S"
	typeNumber = "N"
	typeBytes  = "B"
)

// encodeFields writes fields as JSON: {"name": ["S", "text"], "n": ["N", "12"], "b":
// ["B", "base64"]}. None are NULL.
func encodeFields(fields kv.Fields) (sql.NullString, error) {
	if len(fields) == 0 {
		return sql.NullString{}, nil
	}
	tagged := make(map[string][2]string, len(fields))
	for name, value := range fields {
		switch v := value.(type) {
		case string:
			tagged[name] = [2]string{typeString, v}
		case []byte:
			tagged[name] = [2]string{typeBytes, base64.StdEncoding.EncodeToString(v)}
		default:
			tagged[name] = [2]string{typeNumber, kv.FormatNumber(v)}
		}
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
		return nil, fmt.Errorf("fields are not JSON of types and values: %w", err)
	}
	fields := make(kv.Fields, len(tagged))
	for name, field := range tagged {
		var err error
		switch field[0] {
		case typeString:
			fields[name] = field[1]
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
