package kv_test

import (
	"context"
	"fmt"
	"strconv"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

// Whoever changes what it has read says so, and is told if somebody else was faster.
func ExampleStore_AtomicPut() {
	ctx := context.Background()
	var store kv.Store = memkv.New()

	pair, err := store.AtomicPut(ctx, "jobs/7", kv.WithString("queued"))
	fmt.Println(pair, err)
	_, err = store.AtomicPut(ctx, "jobs/7", kv.WithPrevious(pair), kv.WithString("running"))
	fmt.Println(err)
	_, err = store.AtomicPut(ctx, "jobs/7", kv.WithPrevious(pair), kv.WithString("cancelled"))
	fmt.Println(err)
	// Output:
	// queued <nil>
	// <nil>
	// kv: key "jobs/7" was modified: it is at version 2
}

func ExampleUpdate() {
	ctx := context.Background()
	store := memkv.New()

	increment := func(current *kv.KVPair) ([]byte, error) {
		n := 0
		if current != nil {
			var err error
			if n, err = strconv.Atoi(current.String()); err != nil {
				return nil, err
			}
		}
		return strconv.AppendInt(nil, int64(n+1), 10), nil
	}
	for range 3 {
		pair, err := kv.Update(ctx, store, "visitors", increment)
		fmt.Println(pair, err)
	}
	// Output:
	// 1 <nil>
	// 2 <nil>
	// 3 <nil>
}

func ExampleAll() {
	ctx := context.Background()
	store := memkv.New()
	for i := range 4 {
		if err := store.Put(ctx, fmt.Sprint("jobs/", i), kv.WithString("queued")); err != nil {
			fmt.Println(err)
		}
	}

	for pair, err := range kv.All(ctx, store, "jobs/", kv.WithLimit(2)) { // two at a time
		if err != nil {
			fmt.Println(err)
			break
		}
		fmt.Println(pair.Key, pair)
	}
	// Output:
	// jobs/0 queued
	// jobs/1 queued
	// jobs/2 queued
	// jobs/3 queued
}

func ExamplePrefixed() {
	ctx := context.Background()
	store := memkv.New()
	production := kv.Prefixed(store, "production/")
	staging := kv.Prefixed(store, "staging/")

	fmt.Println(production.Put(ctx, "greeting", kv.WithString("good day")))
	fmt.Println(staging.Put(ctx, "greeting", kv.WithString("hi")))
	pair, err := production.Get(ctx, "greeting")
	fmt.Println(pair.Key, pair, err)
	pair, err = store.Get(ctx, "staging/greeting")
	fmt.Println(pair.Key, pair, err)
	// Output:
	// <nil>
	// <nil>
	// greeting good day <nil>
	// staging/greeting hi <nil>
}

func ExampleWatch() {
	ctx := context.Background()
	store := memkv.New()
	err := store.Put(ctx, "flags/dark-mode", kv.WithString("off"))
	if err != nil {
		fmt.Println(err)
	}

	for event, err := range kv.Watch(ctx, store, "flags/") {
		if err != nil {
			fmt.Println(err)
			break
		}
		switch event.Type {
		case kv.EventPut:
			fmt.Println(event.Key, "is", event.Pair)
			if event.Pair.String() == "on" {
				err = store.Delete(ctx, event.Key)
			}
		case kv.EventDelete:
			fmt.Println(event.Key, "is gone")
			return
		case kv.EventSynced: // that was all there is; now changes come, such as this one
			err = store.Put(ctx, "flags/dark-mode", kv.WithString("on"))
		}
		if err != nil {
			fmt.Println(err)
			break
		}
	}
	// Output:
	// flags/dark-mode is off
	// flags/dark-mode is on
	// flags/dark-mode is gone
}
