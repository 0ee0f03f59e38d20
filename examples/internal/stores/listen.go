package stores

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/dynalock/dynalock/kv/pgkv"
)

// listen is a pgkv.Listen on a connection of its own to dsn.
func listen(dsn string) pgkv.Listen {
	return func(ctx context.Context, channel string, heard func(payload string)) error {
		conn, err := pgx.Connect(ctx, dsn)
		if err != nil {
			return err
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = conn.Close(ctx) // the connection is lost either way
		}()
		if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
			return err
		}
		heard("")
		for {
			notification, err := conn.WaitForNotification(ctx)
			if err != nil {
				return err
			}
			heard(notification.Payload)
		}
	}
}
