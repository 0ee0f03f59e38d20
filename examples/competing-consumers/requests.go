package main

import (
	"context"
	"maps"
	"sync"

	"github.com/dynalock/dynalock/kv"
)

// requestCounts counts a store's requests by kind.
type requestCounts struct {
	mu     sync.Mutex
	counts map[string]int
}

func newRequestCounts() *requestCounts { return &requestCounts{counts: make(map[string]int)} }

// hook is a kv.Hook.
func (c *requestCounts) hook(ctx context.Context, call kv.Call, next func(context.Context) error) error {
	c.mu.Lock()
	c.counts[call.Op]++
	c.mu.Unlock()
	return next(ctx)
}

// snapshot returns a copy of the counts.
func (c *requestCounts) snapshot() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.counts)
}
