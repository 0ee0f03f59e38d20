package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/dynalock/dynalock/internal/rows"
	"github.com/dynalock/dynalock/kv"
)

// MaxNoteSize bounds a key's note, in bytes.
const MaxNoteSize = 1 << 10

// Keep makes key keep value, at most MaxValueSize bytes, while nobody holds it:
// the next acquire finds it. A key that is held or keeps a value already stays as
// it is. It returns the key as it stands, and needs no session. It costs one
// write, and one more if the key is reserved for somebody (see WithTurnAfter).
//
// On failure the key may keep the value all the same, or come to do so yet, if
// the error matches kv.ErrUncertain. A row that cannot be read is an error that
// matches kv.ErrFormat.
func (c *Client) Keep(ctx context.Context, key string, value []byte) (*Holder, error) {
	if err := errors.Join(checkKey(key), checkValue("Keep", value)); err != nil {
		return nil, err
	}
	kept := rows.Lease{Keep: true, Value: bytes.Clone(value)}
	record, previous := kept, (*kv.KVPair)(nil)
	for {
		pair, err := c.store.AtomicPut(ctx, rows.LeasePrefix+key, record.Options(previous, c.attempts)...)
		if err == nil {
			h := showHolder(key, &rows.Found{Pair: pair, Record: &record})
			return &h, nil
		}
		current, conflict := rows.CurrentPair(err)
		failed := !conflict || (current == nil && previous == nil)
		record, previous = kept, current
		if current != nil {
			h, err := readHolder(current)
			if err != nil || h.Held() || h.Kept {
				return h, err
			}
			record = *h.row.Record // whose turn it is stays
			record.Keep, record.Value = true, kept.Value
		}
		if failed {
			return nil, fmt.Errorf("lease: keeping a value for %q: %w", key, err)
		}
	}
}

// Annotate writes a note of at most MaxNoteSize bytes to a key that keeps its
// value, for all who look at it. nil: none. The key's holder, if there is one,
// goes on, and none of its writes undoes the note. h is the key as it was read.
// It costs one write.
//
// An error that matches ErrChanged: the row is another one by now. The note is
// not written, unless by an earlier attempt whose outcome was unknown: read it
// again. Any other error: see kv.ErrUncertain.
func (c *Client) Annotate(ctx context.Context, h *Holder, note []byte) error {
	if err := checkKept("Annotate", h); err != nil {
		return err
	}
	if len(note) > MaxNoteSize {
		return fmt.Errorf("lease: Annotate: a note of %d bytes, want at most %d: %w",
			len(note), MaxNoteSize, ErrInvalid)
	}
	record := h.row.Rewritten()
	record.Note = bytes.Clone(note)
	return c.rewrite(ctx, "annotating", h, record)
}

// Replace replaces the value that a key keeps while nobody holds it, at most
// MaxValueSize bytes. h is the key as it was read. It costs one write. Its errors
// are those of Annotate. If somebody holds the key, the error matches ErrHeld.
func (c *Client) Replace(ctx context.Context, h *Holder, value []byte) error {
	if err := errors.Join(checkKept("Replace", h), checkValue("Replace", value)); err != nil {
		return err
	}
	record := *h.row.Record
	if record.Session != "" {
		return &HeldError{Holder: *h}
	}
	record.Value = bytes.Clone(value)
	return c.rewrite(ctx, "replacing the value of", h, record)
}

// rewrite writes a row over the one that h shows.
func (c *Client) rewrite(ctx context.Context, doing string, h *Holder, record rows.Lease) error {
	previous := h.row.Pair
	_, err := c.store.AtomicPut(ctx, previous.Key, record.Options(previous, c.attempts)...)
	return explainChange(err, doing, h)
}

// Discard removes a key that nobody holds, with the value that it keeps: also one
// that keeps none and whose holder is dead. h is the key as it was read. It costs
// one write, and what Free costs. Its errors are those of Annotate. If the key is
// not free, the error matches ErrHeld.
func (c *Client) Discard(ctx context.Context, h *Holder) error {
	if h == nil || h.row == nil {
		return fmt.Errorf("lease: Discard: want a key that has a row, "+
			"as Holder, Keys, Inspect or Keep returned it: %w", ErrInvalid)
	}
	switch free, err := c.Free(ctx, h); {
	case err != nil:
		return err
	case !free:
		return &HeldError{Holder: *h}
	}
	previous := h.row.Pair
	err := c.store.AtomicDelete(ctx, previous.Key, previous, c.attempts)
	return explainChange(err, "discarding", h)
}

// explainChange makes a conflict of a write over the row of h one of ErrChanged.
func explainChange(err error, doing string, h *Holder) error {
	if err == nil {
		return nil
	}
	if _, conflict := rows.CurrentPair(err); conflict {
		return fmt.Errorf("lease: %s %q: %w: %w", doing, h.Key, ErrChanged, err)
	}
	return fmt.Errorf("lease: %s %q: %w", doing, h.Key, err)
}

// checkKept refuses a holder of a key that keeps no value.
func checkKept(what string, h *Holder) error {
	if h == nil || h.row == nil || !h.row.Record.Keep {
		return fmt.Errorf("lease: %s: want a key that keeps its value, "+
			"as Holder, Keys, Inspect or Keep returned it: %w", what, ErrInvalid)
	}
	return nil
}
