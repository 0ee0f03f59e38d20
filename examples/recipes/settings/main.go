// Settings changes a value that several processes change. No change is lost:
// when somebody else was faster, Update asks again. Start it often.
//
//	go run ./examples/recipes/settings
package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
)

func main() { stores.Main(raise) }

type settings struct{ MailsPerMinute int }

func raise(ctx context.Context, store kv.Store) error {
	pair, err := kv.Update(ctx, store, "settings/mail", func(current *kv.KVPair) ([]byte, error) {
		s := settings{MailsPerMinute: 10}
		if current != nil {
			if err := current.Decode(&s); err != nil {
				return nil, err
			}
		}
		s.MailsPerMinute++
		return json.Marshal(s)
	})
	if err == nil {
		fmt.Println("settings:", pair)
	}
	return err
}
