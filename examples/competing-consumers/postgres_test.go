package main_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/postgreslocal"
)

func TestOnPostgres(t *testing.T) {
	t.Parallel()
	open := func(t *testing.T) string {
		return postgreslocal.Own(t).DSN(postgreslocal.Superuser, "")
	}
	t.Run("a missing table is refused", func(t *testing.T) {
		t.Parallel()
		requireRefused(t, start(t, nil, "-store", open(t)), "-create-table")
	})
	t.Run("a server that is not fit is refused", func(t *testing.T) {
		t.Parallel()
		requireRefused(t, start(t, nil, "-store", open(t)+"&statement_timeout=1h", "-create-table"), "statement_timeout")
	})
	t.Run("a killed worker", func(t *testing.T) {
		t.Parallel()
		p := start(t, nil, "-store", open(t), "-create-table", "-crash", "-ttl", "3s", "-input", files(t, 20),
			"-work", "20ms")
		require.Positive(t, p.complete(t, 20).Takeovers)
	})
	t.Run("two processes", func(t *testing.T) {
		t.Parallel()
		flags := []string{"-store", open(t), "-create-table", "-input", files(t, 40), "-work", "50ms"}
		first, second := start(t, nil, flags...), start(t, nil, flags...)
		first.complete(t, 40)
		second.complete(t, 40)
	})
}
