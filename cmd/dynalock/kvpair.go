package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/dynalock/dynalock/kv"
)

// pairRow is a pair for JSON, and a line of an export. A value that is not UTF-8 is
// in base64.
type pairRow struct {
	Key     string         `json:"key,omitempty"`
	Version uint64         `json:"version,omitempty"`
	Value   *string        `json:"value,omitempty"`
	Bytes   []byte         `json:"value_base64,omitempty"`
	Fields  map[string]any `json:"fields,omitempty"`
	Expires *time.Time     `json:"expires,omitempty"`
}

// base64Field is how a field of bytes stands in JSON.
const base64Field = "base64"

func pairRowOf(p *kv.KVPair) pairRow {
	r := pairRow{Key: p.Key, Version: p.Version}
	if value := p.Bytes(); utf8.Valid(value) {
		text := string(value)
		r.Value = &text
	} else {
		r.Bytes = value
	}
	if !p.Expires.IsZero() {
		r.Expires = &p.Expires
	}
	for name, field := range p.Fields {
		if r.Fields == nil {
			r.Fields = map[string]any{}
		}
		if bytes, ok := field.([]byte); ok {
			field = map[string][]byte{base64Field: bytes}
		}
		r.Fields[name] = field
	}
	return r
}

// options are those that write the row again. expired: there is nothing to write.
func (r *pairRow) options(now time.Time) (options []kv.WriteOption, expired bool, err error) {
	value := r.Bytes
	if r.Value != nil {
		value = []byte(*r.Value)
	}
	options = []kv.WriteOption{kv.WithBytes(value)}
	if len(r.Fields) > 0 {
		fields := kv.Fields{}
		for name, given := range r.Fields {
			if fields[name], err = fieldOf(given); err != nil {
				return nil, false, fmt.Errorf("key %q: field %q: %w", r.Key, name, err)
			}
		}
		options = append(options, kv.WithFields(fields))
	}
	if r.Expires != nil {
		left := r.Expires.Sub(now)
		if left < time.Millisecond {
			return nil, true, nil
		}
		options = append(options, kv.WithTTL(min(left, kv.MaxTTL)))
	}
	return options, false, nil
}

// fieldOf is the field that JSON has as given.
func fieldOf(given any) (any, error) {
	switch given := given.(type) {
	case string:
		return given, nil
	case json.Number:
		return kv.ParseNumber(given.String())
	case map[string]any:
		text, ok := given[base64Field].(string)
		if !ok || len(given) != 1 {
			break
		}
		var bytes []byte
		err := json.Unmarshal([]byte(strconv.Quote(text)), &bytes)
		return bytes, err
	}
	return nil, fmt.Errorf("%v: want a string, a number or {%q: ...}", given, base64Field)
}
