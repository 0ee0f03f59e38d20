package main

import (
	"context"
	"errors"

	"github.com/dynalock/dynalock/kv"
)

// Result is the value of the pair result/<set>/<entry>. It shows how a resource
// refuses a holder that lost its lock unawares: a result with a smaller token
// never replaces one with a greater (see publish).
type Result struct {
	// Worker is who did the work, Token the fencing token of the lock that it had.
	Worker string `json:"worker"`
	Token  uint64 `json:"token"`
	// Digest is the SHA-256 of the file, in hex.
	Digest string `json:"digest"`
}

// resultsOf returns the part of store that has the results of a set of entries.
func resultsOf(store kv.Store, set string) kv.Store { return kv.Prefixed(store, "result/"+set+"/") }

// findResult returns the result of entry, nil if there is none. It costs one read.
func findResult(ctx context.Context, results kv.Store, entry string) (*Result, error) {
	pair, err := results.Get(ctx, entry)
	if errors.Is(err, kv.ErrKeyNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	result := new(Result)
	return result, pair.Decode(result)
}

// publish stores result unless there is one with the same or a greater token,
// and reports whether it did. On an error the result may have been stored. It
// costs one write for an entry's first result.
func publish(ctx context.Context, results kv.Store, entry string, result Result) (accepted bool, err error) {
	options := []kv.WriteOption{kv.WithJSON(result)}
	for {
		_, err := results.AtomicPut(ctx, entry, options...)
		var conflict *kv.ConflictError
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, kv.ErrUncertain) && ctx.Err() == nil:
			return publishedAfterAll(ctx, results, entry, result, err)
		case !errors.As(err, &conflict):
			return false, err
		}
		options = options[:1]
		if conflict.Current == nil {
			continue
		}
		var current Result
		if err := conflict.Current.Decode(&current); err != nil {
			return false, err
		}
		if current.Token >= result.Token {
			return false, nil
		}
		options = append(options, kv.WithPrevious(conflict.Current))
	}
}

// publishedAfterAll answers for a write whose outcome was unknown, as unknown
// says. If the store does not show the result it stays unknown: the caller
// gives up and somebody does the entry again, with a greater token.
func publishedAfterAll(ctx context.Context, results kv.Store, entry string, result Result,
	unknown error) (bool, error) {
	current, err := findResult(ctx, results, entry)
	if err != nil || current == nil || current.Token < result.Token {
		return false, errors.Join(unknown, err)
	}
	return *current == result, nil
}
