package lock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// index is a resource that refuses readers and writers who were paused and have
// lost the lock. It keeps the greatest epochs that it has served.
type index struct {
	mu               sync.Mutex
	writers, readers uint64
	text             string
}

var errStale = errors.New("refused: it has lost the lock")

func (x *index) read(epoch uint64) (string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if epoch < x.writers {
		return "", errStale
	}
	x.readers = max(x.readers, epoch)
	return x.text, nil
}

func (x *index) write(token uint64, text string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if token < x.writers || token <= x.readers {
		return errStale
	}
	x.writers, x.text = token, text
	return nil
}

// Readers read together, a writer writes alone, and the resource keeps two
// bars.
func ExampleRWMutex() {
	ctx := context.Background()
	client, err := lease.New(memkv.New())
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	var x index
	m := lock.NewRWMutex(client, "index")
	rebuild := func(text string) (token uint64, err error) {
		err = m.Do(ctx, func(_ context.Context, l *lease.Lease) error {
			token = l.Token()
			return x.write(token, text)
		})
		return token, err
	}
	paused, err := rebuild("one")
	fmt.Println("rebuilt:", err)
	fmt.Println(m.RDo(ctx, func(ctx context.Context, first *lock.ReadLease) error {
		return m.RDo(ctx, func(_ context.Context, second *lock.ReadLease) error {
			text, err := x.read(second.Epoch())
			fmt.Println(text, first.Epoch() == second.Epoch())
			return err
		})
	}))
	fmt.Println("a writer that woke too late:", x.write(paused, "two"))
	_, err = rebuild("three")
	fmt.Println("rebuilt:", err)
	// Output:
	// rebuilt: <nil>
	// one true
	// <nil>
	// a writer that woke too late: refused: it has lost the lock
	// rebuilt: <nil>
}

// A try does not wait, and says who is in the way.
func ExampleRWMutex_TryDo() {
	ctx := context.Background()
	client, err := lease.New(memkv.New(), lease.WithOwner("web-1"))
	if err != nil {
		panic(err)
	}
	defer func() { _ = client.Close(ctx) }()

	m := lock.NewRWMutex(client, "index")
	reader, err := m.RLock(ctx)
	if err != nil {
		panic(err)
	}
	err = m.TryDo(ctx, func(context.Context, *lease.Lease) error {
		fmt.Println("never, beside a reader")
		return nil
	})
	var held *lease.HeldError
	if errors.As(err, &held) {
		fmt.Println(len(held.Holders), "reads:", held.Holder.Owner)
	}
	fmt.Println(reader.Release(ctx))
	fmt.Println(m.TryDo(ctx, func(context.Context, *lease.Lease) error { return nil }))
	// Output:
	// 1 reads: web-1
	// <nil>
	// <nil>
}
