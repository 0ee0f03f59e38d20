package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/lock"
)

// Handler handles the invocations of one sandbox: one at a time, as AWS Lambda
// calls it. Make it once, outside the handler function, and give its Handle to
// lambda.Start.
//
// Between invocations the sandbox is frozen: no heartbeat is sent, and Go's
// monotonic clock stands still. It may be thawed after a second, after an hour,
// or never. So:
//
//   - Handle gives the lock back before it returns. What a frozen sandbox holds
//     is lost after the TTL, and everybody waits for that.
//   - The client, and with it the session, outlives an invocation. After a short
//     freeze the session is still good, and an invocation costs two writes for the
//     lock. After a long one the client knows, by the wall clock, that the session
//     is over, and opens another: one write more. A sandbox that is never thawed
//     leaves a session behind that holds nothing.
//   - A sandbox is frozen in the middle of Handle too, when the function times
//     out. Then the lock is lost, and what Handle does after a thaw is refused by
//     its token: see save.
type Handler struct {
	store  kv.Store
	client *lease.Client
	// work is what one invocation does under the lock.
	work func(ctx context.Context, account string) (balance int, err error)
}

// NewHandler makes a Handler. The TTL is short: nobody should wait for long for
// a sandbox that was frozen in the middle.
func NewHandler(store kv.Store, work func(ctx context.Context, account string) (int, error),
	options ...lease.Option) (*Handler, error) {
	client, err := lease.New(store, append([]lease.Option{lease.WithTTL(6 * time.Second)}, options...)...)
	if err != nil {
		return nil, err
	}
	return &Handler{store, client, work}, nil
}

// Event is what the function is invoked with.
type Event struct {
	Account string `json:"account"`
}

// Balance is what the function keeps for each account, and its answer.
type Balance struct {
	Amount int `json:"amount"`
	// Token is the fencing token of the lock under which it was written.
	Token uint64 `json:"token"`
}

// Errors of Handle: both are for whoever invokes the function to try again,
// which costs less than a function that waits.
var (
	ErrBusy   = errors.New("another invocation is at work on the account")
	ErrFenced = errors.New("the lock was lost, and a later holder has written")
)

// Handle is the handler function. An account is worked on by one invocation at
// a time, in whatever sandbox.
func (h *Handler) Handle(ctx context.Context, event Event) (Balance, error) {
	l, err := lock.NewMutex(h.client, "account/"+event.Account).TryLock(ctx)
	if errors.Is(err, lease.ErrHeld) {
		return Balance{}, fmt.Errorf("%w: %w", ErrBusy, err)
	}
	if err != nil {
		return Balance{}, err
	}
	saved, err := h.handle(ctx, event.Account, l)
	// Here, and not in another goroutine or the next invocation: once this
	// function has returned nothing of it runs.
	if err := errors.Join(err, l.Release(ctx)); err != nil {
		return Balance{}, err
	}
	return saved, nil
}

// handle does the work under the lock, as long as both the invocation and the lock last.
func (h *Handler) handle(ctx context.Context, account string, l *lease.Lease) (Balance, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(l.Context(), func() { cancel(l.Err()) })()
	amount, err := h.work(ctx, account)
	if err != nil {
		return Balance{}, err
	}
	balance := Balance{amount, l.Token()}
	return balance, save(ctx, h.store, account, balance)
}

// save writes the balance unless one with a greater token is there: who was
// frozen between the last look at the lock and this write cannot overwrite what
// a later holder wrote.
func save(ctx context.Context, store kv.Store, account string, balance Balance) error {
	_, err := kv.Update(ctx, store, "balance/"+account, func(current *kv.KVPair) ([]byte, error) {
		var before Balance
		if current != nil {
			if err := current.Decode(&before); err != nil {
				return nil, err
			}
		}
		if before.Token > balance.Token {
			return nil, fmt.Errorf("%w: its token is %d, ours %d", ErrFenced, before.Token, balance.Token)
		}
		return json.Marshal(balance)
	})
	return err
}
