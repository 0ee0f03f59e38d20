package kv

import "context"

// Call names an operation on a store, for a Hook.
type Call struct {
	// Op is the method's name, such as "AtomicPut".
	Op string
	// Key is the key, or the prefix of List and ListPage.
	Key string
}

// Hook stands between a caller and a store: it measures, traces, logs, delays or
// refuses. It calls next, at most once, with ctx or a context made of it. next runs
// the operation and returns its error.
//
// What the hook returns is the method's error. With an error the method's result is
// zero. A hook should not hide an error of next: the method would succeed with
// whatever there is. As many goroutines call it as use the store.
type Hook func(ctx context.Context, call Call, next func(context.Context) error) error

// Instrument returns a store that calls hook around each method of store. It costs no request.
//
// A hook that fails a write after next ran it owes its callers the three outcomes of
// S4: a *UncertainError, unless it knows better.
func Instrument(store Store, hook Hook) Store { return &instrumented{store, hook} }

type instrumented struct {
	store Store
	hook  Hook
}

// Unwrap implements Wrapper.
func (i *instrumented) Unwrap() Store { return i.store }

func (i *instrumented) Put(ctx context.Context, key string, options ...WriteOption) error {
	return i.hook(ctx, Call{"Put", key}, func(ctx context.Context) error {
		return i.store.Put(ctx, key, options...)
	})
}

func (i *instrumented) Get(ctx context.Context, key string, options ...ReadOption) (*KVPair, error) {
	return hooked(ctx, i.hook, Call{"Get", key}, func(ctx context.Context) (*KVPair, error) {
		return i.store.Get(ctx, key, options...)
	})
}

func (i *instrumented) List(ctx context.Context, prefix string, options ...ReadOption) ([]*KVPair, error) {
	return hooked(ctx, i.hook, Call{"List", prefix}, func(ctx context.Context) ([]*KVPair, error) {
		return i.store.List(ctx, prefix, options...)
	})
}

func (i *instrumented) Delete(ctx context.Context, key string, options ...DeleteOption) error {
	return i.hook(ctx, Call{"Delete", key}, func(ctx context.Context) error {
		return i.store.Delete(ctx, key, options...)
	})
}

func (i *instrumented) Exists(ctx context.Context, key string, options ...ReadOption) (bool, error) {
	return hooked(ctx, i.hook, Call{"Exists", key}, func(ctx context.Context) (bool, error) {
		return i.store.Exists(ctx, key, options...)
	})
}

func (i *instrumented) AtomicPut(ctx context.Context, key string, options ...WriteOption) (*KVPair, error) {
	return hooked(ctx, i.hook, Call{"AtomicPut", key}, func(ctx context.Context) (*KVPair, error) {
		return i.store.AtomicPut(ctx, key, options...)
	})
}

func (i *instrumented) AtomicDelete(ctx context.Context, key string, previous *KVPair, options ...DeleteOption) error {
	return i.hook(ctx, Call{"AtomicDelete", key}, func(ctx context.Context) error {
		return i.store.AtomicDelete(ctx, key, previous, options...)
	})
}

func (i *instrumented) ListPage(ctx context.Context, prefix string, options ...ReadOption) (*Page, error) {
	return hooked(ctx, i.hook, Call{"ListPage", prefix}, func(ctx context.Context) (*Page, error) {
		return i.store.ListPage(ctx, prefix, options...)
	})
}

// hooked runs an operation that has a result under hook.
func hooked[T any](ctx context.Context, hook Hook, call Call, operation func(context.Context) (T, error)) (T, error) {
	var result T
	err := hook(ctx, call, func(ctx context.Context) (err error) {
		result, err = operation(ctx)
		return err
	})
	if err != nil {
		var zero T
		return zero, err
	}
	return result, nil
}
