package kv

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Fields are named values beside a pair's value, kept by every driver. On
// DynamoDB they are attributes of the item, so that secondary indexes and the
// conditions of other writes can use them.
//
// A value is a string, a []byte or a number: any type of Go's whose kind is integer or float. A
// store returns numbers as int64 if they are whole and fit, else as float64.
type Fields map[string]any

// maxFieldName is the length in bytes that DynamoDB allows a name that an index may use.
const maxFieldName = 255

// reservedFields are the attributes in which dynamokv keeps the pair itself. Every
// driver refuses them.
var reservedFields = []string{"id", "name", "version", "payload", "writer", "deadline", "expires", "deleted"}

// ReservedFields returns the names that no field may have.
func ReservedFields() []string { return slices.Clone(reservedFields) }

// normalize returns a copy of f that holds only the types a store returns. Its
// error is that of the first bad field, in the order of their names.
func (f Fields) normalize() (Fields, error) {
	if len(f) == 0 {
		return nil, nil
	}
	out := make(Fields, len(f))
	var first string
	var problem error
	for name, value := range f {
		v, err := checkField(name, value)
		if err != nil && (problem == nil || name < first) {
			first, problem = name, err
		}
		out[name] = v
	}
	if problem != nil {
		return nil, problem
	}
	return out, nil
}

// checkField returns a field's value as a store returns it.
func checkField(name string, value any) (any, error) {
	if name == "" || len(name) > maxFieldName || !utf8.ValidString(name) {
		return nil, fmt.Errorf("field name %q is not 1 to %d bytes of UTF-8: %w", name, maxFieldName, ErrInvalidOption)
	}
	if slices.Contains(reservedFields, name) {
		return nil, fmt.Errorf("field %q: %w (reserved: %v)", name, ErrReservedField, reservedFields)
	}
	v, err := normalizeField(value)
	if err != nil {
		return nil, fmt.Errorf("field %q: %w", name, err)
	}
	return v, nil
}

// normalizeField turns a field's value into a string, []byte, int64 or float64.
func normalizeField(value any) (any, error) {
	v := reflect.ValueOf(value)
	switch v.Kind() {
	case reflect.String:
		if !utf8.ValidString(v.String()) {
			return nil, fmt.Errorf("string %q is not UTF-8, use []byte: %w", v.String(), ErrInvalidOption)
		}
		if _, ok := value.(string); ok {
			return value, nil // as it came, which allocates nothing
		}
		return v.String(), nil
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return append([]byte{}, v.Bytes()...), nil
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return v.Int(), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if v.Uint() > math.MaxInt64 {
			return nil, fmt.Errorf("number %d is greater than %d: %w", v.Uint(), math.MaxInt64, ErrInvalidOption)
		}
		return int64(v.Uint()), nil
	case reflect.Float32, reflect.Float64:
		return normalizeFloat(v.Float())
	}
	return nil, fmt.Errorf("%T is not a string, []byte or number: %w", value, ErrInvalidOption)
}

// normalizeFloat keeps what DynamoDB's numbers can hold. It makes whole numbers int64,
// as they are when read back.
func normalizeFloat(f float64) (any, error) {
	const smallest, greatest = 1e-130, 9.9e125
	if math.IsNaN(f) || math.Abs(f) > greatest || (f != 0 && math.Abs(f) < smallest) {
		return nil, fmt.Errorf("number %g is not 0 or between %g and %g: %w", f, smallest, greatest, ErrInvalidOption)
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f), nil
	}
	return f, nil
}

// FormatNumber writes a number of Fields (int64 or float64) as drivers store it.
// ParseNumber reads it back.
func FormatNumber(number any) string {
	if i, ok := number.(int64); ok {
		return strconv.FormatInt(i, 10)
	}
	return strconv.FormatFloat(number.(float64), 'g', -1, 64)
}

// ParseNumber reads a decimal number as Fields hold it: int64 if it is whole
// and fits, else float64.
func ParseNumber(text string) (any, error) {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || strings.Trim(text, "+-.0123456789eE") != "" { // ParseFloat takes NaN, Inf and hexadecimal too
		return nil, fmt.Errorf("kv: %q is not a decimal number: %w", text, ErrFormat)
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f), nil
	}
	return f, nil
}

// size is what f counts towards MaxPairSize.
func (f Fields) size() int {
	n := 0
	for name, value := range f {
		n += len(name)
		switch v := value.(type) {
		case string:
			n += len(v)
		case []byte:
			n += len(v)
		default:
			n += 21 // DynamoDB: at most 21 bytes a number of up to 38 digits
		}
	}
	return n
}
