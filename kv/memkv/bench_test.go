package memkv_test

import (
	"strconv"
	"testing"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
)

func BenchmarkPut(b *testing.B) {
	store, ctx := memkv.New(), b.Context()
	for i := 0; b.Loop(); i++ {
		if err := store.Put(ctx, strconv.Itoa(i%1000), kv.WithString("value")); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkGet(b *testing.B) {
	store, ctx := memkv.New(), b.Context()
	if err := store.Put(ctx, "k", kv.WithString("value")); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := store.Get(ctx, "k"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAtomicPut(b *testing.B) {
	store, ctx := memkv.New(), b.Context()
	var pair *kv.KVPair
	for b.Loop() {
		var err error
		if pair, err = store.AtomicPut(ctx, "k", kv.WithString("value"), kv.WithPrevious(pair)); err != nil {
			b.Fatal(err)
		}
	}
}
