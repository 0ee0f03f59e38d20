package metrics_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/metrics"
)

func Example() {
	ctx := context.Background()
	counts, err := metrics.New()
	if err != nil {
		log.Fatal(err)
	}
	store := kv.Instrument(memkv.New(), counts.Hook)
	client, err := lease.New(store, lease.WithObserver(counts.Observer()))
	if err != nil {
		log.Fatal(err)
	}
	l, err := client.Acquire(ctx, "key")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := client.TryAcquire(ctx, "key"); err != nil {
		fmt.Println(strings.Contains(err.Error(), "is held by"))
	}
	if err := l.Release(ctx); err != nil {
		log.Fatal(err)
	}
	if err := client.Close(ctx); err != nil { // which waits until the observer has been told
		log.Fatal(err)
	}
	var text bytes.Buffer
	if err := counts.WritePrometheus(&text); err != nil {
		log.Fatal(err)
	}
	for lines := bufio.NewScanner(&text); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "dynalock_acquire_duration_seconds_count") {
			fmt.Println(lines.Text())
		}
	}
	// Output:
	// true
	// dynalock_acquire_duration_seconds_count{outcome="acquired"} 1
	// dynalock_acquire_duration_seconds_count{outcome="refused"} 1
}
