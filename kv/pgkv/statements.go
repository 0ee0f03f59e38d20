package pgkv

import "fmt"

// statements are the SQL of a Store's table. Each parameter has its type beside
// it, so that a driver need not ask the server for it.
type statements struct {
	create, swap, put, atomicDelete, delete string
	row, sweep, check                       string
}

const (
	// isLive is the condition of a live pair in the row t.
	isLive = "NOT t.deleted AND (t.expires IS NULL OR t.expires > clock_timestamp())"
	// retained is how long a row stays after it died.
	retained = "interval '1 hour'"
)

// insert is what create and put have in common. $1 namespace, $2 key, $3 version,
// $4 value, $5 fields, $6 ttl in ms or NULL, $7 sweep hint in ms or NULL, $8
// writer, $9 deadline of the write.
const insert = `INSERT INTO %s AS t (ns, key, version, value, fields, expires, deleted, sweep, writer, written)
SELECT $1::text, $2::bytea, $3::bigint, $4::bytea, $5::text::jsonb, n.expires, false,
	GREATEST(n.now + $7::bigint * interval '1 ms', n.expires + ` + retained + `), $8::bytea, n.now
FROM (SELECT c.now, date_trunc('milliseconds', c.now) + $6::bigint * interval '1 ms' AS expires
	FROM (SELECT clock_timestamp() AS now) c) n
WHERE n.now < $9::timestamptz%s
ON CONFLICT (ns, key) DO UPDATE SET `

func newStatements(table string) statements {
	return statements{
		// A live pair refuses it without any lock, so that whoever tries need not
		// wait for a transaction that holds one. On a dead row that is in the
		// way PostgreSQL decides under its lock, by its latest version.
		create: fmt.Sprintf(insert+`version = excluded.version, value = excluded.value, fields = excluded.fields,
	expires = excluded.expires, deleted = false, sweep = excluded.sweep,
	writer = excluded.writer, written = excluded.written
WHERE NOT (`+isLive+`) AND t.version < excluded.version AND clock_timestamp() < $9::timestamptz
RETURNING t.expires, clock_timestamp()`, table, fmt.Sprintf(`
	AND NOT EXISTS (SELECT FROM %s AS t WHERE t.ns = $1::text AND t.key = $2::bytea AND `+isLive+`)`, table)),

		// $10: keep the expiry of a live pair.
		put: fmt.Sprintf(insert+`version = t.version + 1, value = excluded.value,
	fields = CASE WHEN `+isLive+` AND t.fields IS NOT NULL THEN t.fields || COALESCE(excluded.fields, '{}')
		ELSE excluded.fields END,
	expires = CASE WHEN $10::bool AND `+isLive+` THEN t.expires ELSE excluded.expires END,
	sweep = CASE WHEN $10::bool AND `+isLive+` THEN GREATEST(excluded.sweep, t.expires + `+retained+`)
		ELSE excluded.sweep END,
	deleted = false, writer = excluded.writer, written = excluded.written
WHERE clock_timestamp() < $9::timestamptz
RETURNING t.expires, clock_timestamp()`, table, ""),

		// The numbers are those of put; $11 is the previous version.
		swap: fmt.Sprintf(`UPDATE %s AS t SET version = $3::bigint, value = $4::bytea, fields = $5::text::jsonb,
	expires = CASE WHEN $10::bool THEN t.expires
		ELSE date_trunc('milliseconds', clock_timestamp()) + $6::bigint * interval '1 ms' END,
	sweep = GREATEST(clock_timestamp() + $7::bigint * interval '1 ms',
		CASE WHEN $10::bool THEN t.expires ELSE clock_timestamp() + $6::bigint * interval '1 ms' END + `+retained+`),
	writer = $8::bytea, written = clock_timestamp()
WHERE t.ns = $1::text AND t.key = $2::bytea AND t.version = $11::bigint
	AND `+isLive+` AND clock_timestamp() < $9::timestamptz
RETURNING t.expires, clock_timestamp()`, table),

		// $1 namespace, $2 key, $3 writer, $4 deadline, $5 version, $6 previous
		// version, $7 the channel to notify, empty for none.
		atomicDelete: fmt.Sprintf(`UPDATE %s AS t SET version = $5::bigint, `+tombstone+`
WHERE t.ns = $1::text AND t.key = $2::bytea AND t.version = $6::bigint
	AND `+isLive+` AND clock_timestamp() < $4::timestamptz
RETURNING CASE WHEN $7::text <> '' AND pg_notify($7::text, encode(t.key, 'hex')) IS NULL
	THEN t.expires ELSE t.expires END, clock_timestamp()`, table),

		// It returns a row unless the deadline has passed, also where there was nothing to delete.
		delete: fmt.Sprintf(`WITH buried AS (UPDATE %s AS t SET version = t.version + 1, `+tombstone+`
	WHERE t.ns = $1::text AND t.key = $2::bytea AND NOT t.deleted AND clock_timestamp() < $4::timestamptz RETURNING 1)
SELECT NULL::timestamptz, clock_timestamp() FROM (SELECT count(*) AS rows FROM buried) b
WHERE b.rows > 0 OR clock_timestamp() < $4::timestamptz`, table),

		// It returns a row always, for the time. Without a pair it is NULL.
		row: fmt.Sprintf(`SELECT t.version, COALESCE(`+isLive+`, false), t.expires, t.fields::text, t.value, t.writer,
	clock_timestamp()
FROM (SELECT) one LEFT JOIN %s AS t ON t.ns = $1::text AND t.key = $2::bytea`, table),

		// $2: the last key that was swept.
		sweep: fmt.Sprintf(`WITH page AS (SELECT key FROM %[1]s WHERE ns = $1::text AND key > $2::bytea
	ORDER BY key LIMIT %[2]d),
gone AS (DELETE FROM %[1]s AS t USING page WHERE t.ns = $1::text AND t.key = page.key AND t.sweep < clock_timestamp())
SELECT key FROM page ORDER BY key DESC LIMIT 1`, table, sweepRows),

		// $3 field, $4 its value. The lock lasts until the transaction ends.
		check: fmt.Sprintf(`SELECT t.version FROM %s AS t WHERE t.ns = $1::text AND t.key = $2::bytea AND `+isLive+`
	AND t.fields -> $3::text = $4::text::jsonb FOR SHARE`, table),
	}
}

// tombstone are the columns of a tombstone.
const tombstone = `value = NULL, fields = NULL, expires = NULL, deleted = true,
	sweep = clock_timestamp() + ` + retained + `,
	writer = $3::bytea, written = clock_timestamp()`
