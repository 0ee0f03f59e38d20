package kv_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/kv"
)

func TestParseNumberTakesDecimalsOnly(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]any{"7": int64(7), "-0.5": -0.5, "3.0": int64(3), "1e-7": 1e-7} {
		got, err := kv.ParseNumber(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "NaN", "Inf", "-inf", "0x1p4", "1e999", "1 2"} {
		_, err := kv.ParseNumber(text)
		require.ErrorIs(t, err, kv.ErrFormat, text)
	}
}

// Of several bad fields the one whose name comes first is told of, whatever the
// order of the map.
func TestTheFirstOfTheBadFieldsIsTold(t *testing.T) {
	t.Parallel()
	for range 50 {
		for _, c := range []struct {
			fields kv.Fields
			want   error
		}{
			{kv.Fields{"good": 1, "id": 1, "zoo": struct{}{}}, kv.ErrReservedField},
			{kv.Fields{"good": 1, "id": 1, "animal": struct{}{}}, kv.ErrInvalidOption},
			{kv.Fields{"": 1, "id": 1}, kv.ErrInvalidOption},
		} {
			_, err := kv.PutSettings("k", []kv.WriteOption{kv.WithFields(c.fields)})
			require.ErrorIs(t, err, c.want, "%v", c.fields)
		}
	}
}
