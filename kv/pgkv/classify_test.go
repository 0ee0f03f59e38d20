package pgkv

import (
	"database/sql"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

// coded is an answer of PostgreSQL's.
type coded string

func (c coded) Error() string    { return "SQLSTATE " + string(c) }
func (c coded) SQLState() string { return string(c) }

// A server that panics while it writes a COMMIT to disk answers with the code of a
// full disk: only a connection that goes on proves that nothing was applied.
func TestAnAnswerOnAConnectionThatDoesNotGoOnProvesNothing(t *testing.T) {
	t.Parallel()
	for _, code := range []coded{"53100", "40001", "57014", "23505"} {
		db := sql.OpenDB(&scripted{query: errors.New("the connection is lost")})
		conn, err := db.Conn(t.Context())
		require.NoError(t, err)
		require.Equal(t, unknown, judge(t.Context(), conn, code).verdict, "%s", code)
		require.NoError(t, conn.Close())
		require.NoError(t, db.Close())
	}
}
