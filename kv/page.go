package kv

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// Page is a part of a listing.
type Page struct {
	// Pairs are the page's live pairs. A page that is not the last may have none.
	Pairs []*KVPair
	// Next is the token for WithStartKey, "" after the last page. It is opaque. It is
	// good in any process, for as long as the store's data format lives.
	Next string
}

// Cursor is what the token of a page says, for drivers: the listing that it belongs to,
// and the last row that was looked at. Tokens are checked, not secret and not signed:
// whoever can read a store's pairs may read them.
type Cursor struct {
	// Prefix, Descending and Index are those of the listing.
	Prefix     string `json:"p"`
	Descending bool   `json:"d,omitempty"`
	Index      string `json:"i,omitempty"`
	// Key is the last key that was looked at; the next page starts behind it.
	Key string `json:"k"`
	// Position is what else a driver needs to go on, such as the index attributes of the row.
	Position map[string]any `json:"x,omitempty"`
}

// tokenFormat is the first byte of a decoded token.
const tokenFormat = '1'

// NewCursor makes the cursor of a listing that stopped at key.
func NewCursor(prefix string, s ReadSettings, key string) Cursor {
	c := Cursor{Prefix: prefix, Descending: s.Descending, Key: key}
	if s.Index != nil {
		c.Index = s.Index.Name
	}
	return c
}

// Token writes the cursor as a Page's Next.
func (c Cursor) Token() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(fmt.Sprintf("kv: cursor %+v: %v", c, err)) // strings and numbers always marshal
	}
	return base64.RawURLEncoding.EncodeToString(append([]byte{tokenFormat}, text...))
}

// ParseCursor reads the token in s, which must be one of the same listing, or else the
// key to start after. ok is false if there is neither: the listing starts at its
// beginning. A token of something else is an ErrInvalidOption.
func ParseCursor(prefix string, s ReadSettings) (c Cursor, ok bool, err error) {
	if s.StartKey == "" {
		return NewCursor(prefix, s, s.StartAfter), s.StartAfter != "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(s.StartKey)
	if err != nil || len(raw) == 0 || raw[0] != tokenFormat || json.Unmarshal(raw[1:], &c) != nil ||
		CheckKey(c.Key) != nil {
		return Cursor{}, false, fmt.Errorf("kv: WithStartKey(%.40q): not a token that ListPage returned: %w",
			s.StartKey, ErrInvalidOption)
	}
	if want := NewCursor(prefix, s, c.Key); c.Prefix != want.Prefix || c.Descending != want.Descending ||
		c.Index != want.Index {
		return Cursor{}, false,
			fmt.Errorf("kv: WithStartKey: a token of the listing of prefix %q (descending %t, index %q), not of this one: %w",
				c.Prefix, c.Descending, c.Index, ErrInvalidOption)
	}
	return c, true, nil
}
