package kv_test

import (
	"context"
	"fmt"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

// A page's token may travel: to a browser and back, or to another process.
func ExampleStore_ListPage() {
	ctx := context.Background()
	store := memkv.New()
	for _, key := range []string{"jobs/1", "jobs/2", "jobs/3"} {
		if err := store.Put(ctx, key); err != nil {
			fmt.Println(err)
		}
	}

	token := ""
	for {
		page, err := store.ListPage(ctx, "jobs/", kv.WithLimit(2), kv.WithStartKey(token))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(len(page.Pairs), "from", page.Pairs[0].Key)
		if token = page.Next; token == "" {
			return
		}
	}
	// Output:
	// 2 from jobs/1
	// 1 from jobs/3
}

func ExampleDeletePrefix() {
	ctx := context.Background()
	store := memkv.New()
	for _, key := range []string{"jobs/1", "jobs/2", "jobs"} {
		if err := store.Put(ctx, key); err != nil {
			fmt.Println(err)
		}
	}

	n, err := kv.DeletePrefix(ctx, store, "jobs/")
	fmt.Println(n, err)
	exists, err := store.Exists(ctx, "jobs")
	fmt.Println(exists, err)
	// Output:
	// 2 <nil>
	// true <nil>
}

func ExampleInstrument() {
	ctx := context.Background()
	store := kv.Instrument(memkv.New(), func(ctx context.Context, call kv.Call, next func(context.Context) error) error {
		err := next(ctx)
		fmt.Println(call.Op, call.Key, err)
		return err
	})

	_ = store.Put(ctx, "k")
	_, _ = store.Get(ctx, "missing")
	// Output:
	// Put k <nil>
	// Get missing kv: key "missing" not found
}

// A driver's own methods are found through wrappers.
func ExampleAs() {
	store := kv.Prefixed(memkv.New(), "jobs/")

	delayer, ok := kv.As[kv.WriteDelayer](store)
	fmt.Println(ok, delayer.MaxWriteDelay())
	_, ok = kv.As[fmt.Stringer](store)
	fmt.Println(ok)
	// Output:
	// true 0s
	// false
}

func ExampleWithJSON() {
	type job struct {
		Name string
		Try  int
	}
	ctx := context.Background()
	store := memkv.New()

	pair, err := store.AtomicPut(ctx, "jobs/7", kv.WithJSON(job{"import", 1}))
	fmt.Println(pair, err)
	var got job
	fmt.Println(pair.Decode(&got), got.Name)
	// Output:
	// {"Name":"import","Try":1} <nil>
	// <nil> import
}
