package kv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"time"
)

// KVPair is a key with its value, as a store held it at one instant. It belongs to whoever got it.
type KVPair struct {
	// Key is the pair's key.
	Key string
	// Version is a number that the store gave this state of the key. For one key it only grows;
	// versions of different keys say nothing about each other, and gaps are normal.
	Version uint64
	// Expires is when the pair goes, in whole milliseconds; the zero time: never.
	Expires time.Time
	// Fields are the pair's named values, nil if it has none: strings, []byte, int64 and float64.
	Fields Fields

	value []byte
}

// NewPair makes a pair, for drivers. It keeps value and fields, it does not copy them.
func NewPair(key string, version uint64, value []byte, expires time.Time, fields Fields) *KVPair {
	return &KVPair{Key: key, Version: version, Expires: expires, Fields: fields, value: value}
}

// Bytes returns the value, never nil. It is not a copy.
func (p *KVPair) Bytes() []byte {
	if p.value == nil {
		return []byte{}
	}
	return p.value
}

// String returns the value as a string.
func (p *KVPair) String() string { return string(p.value) }

// Decode parses the value as JSON into v, as WithJSON wrote it.
func (p *KVPair) Decode(v any) error {
	if err := json.Unmarshal(p.value, v); err != nil {
		return fmt.Errorf("kv: value of key %q: %w", p.Key, err)
	}
	return nil
}

// Clone returns a copy that shares nothing with p.
func (p *KVPair) Clone() *KVPair {
	c := *p
	c.value = bytes.Clone(p.value)
	c.Fields = p.Fields.clone()
	return &c
}

// Live reports whether the pair has not expired at now. now is the caller's wall clock.
func (p *KVPair) Live(now time.Time) bool {
	return p.Expires.IsZero() || p.Expires.UnixMilli() > now.UnixMilli()
}

// clone copies the map and the byte slices in it.
func (f Fields) clone() Fields {
	c := maps.Clone(f)
	for name, value := range c {
		if b, ok := value.([]byte); ok {
			c[name] = bytes.Clone(b)
		}
	}
	return c
}
