// Crawler fetches pages of one site, never more than two at a time and never more
// than two a second, however many processes crawl. Each page is fetched once.
// Start it in several terminals.
//
//	go run ./examples/patterns/crawler
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/examples/internal/stores"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

func main() { stores.Main(crawl) }

func crawl(ctx context.Context, store kv.Store) error {
	client, err := lease.New(store) // one client per process
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = client.Close(ctx)
	}()
	today := lock.Slot(time.Now(), 24*time.Hour)
	pages := lock.NewOnce(client, "crawl/"+today)
	// A permit is kept for a second at least, also when the page came sooner. That
	// is what makes it a bound per second.
	site := lock.NewSemaphore(client, "crawl/example.com", 2, lease.WithMinHold(time.Second))
	for i := range 8 {
		page := fmt.Sprintf("https://example.com/%d", i)
		ran, err := pages.Do(ctx, page, func(ctx context.Context, _ *lease.Lease) error {
			return site.Do(ctx, func(ctx context.Context, permit *lease.Lease) error {
				return fetch(ctx, page, permit)
			})
		})
		switch {
		case errors.Is(err, lease.ErrHeld): // another process is at it
		case err != nil:
			return err
		case !ran:
			fmt.Println("was fetched before:", page)
		}
	}
	return nil
}

// fetch would fetch the page. ctx ends if the permit is lost.
func fetch(ctx context.Context, page string, permit *lease.Lease) error {
	fmt.Println("fetches", page, "with permit", permit.Key())
	select {
	case <-time.After(100 * time.Millisecond):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
