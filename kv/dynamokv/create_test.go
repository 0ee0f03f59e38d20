package dynamokv_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/dynamokv"
)

// removals are the ways to free a key. Each leaves a row that is dead.
var removals = map[string]func(t *testing.T, s kv.Store, p *kv.KVPair){
	"deleted": func(t *testing.T, s kv.Store, p *kv.KVPair) {
		require.NoError(t, s.AtomicDelete(t.Context(), "key", p))
	},
	"deleted blindly": func(t *testing.T, s kv.Store, _ *kv.KVPair) {
		require.NoError(t, s.Delete(t.Context(), "key"))
	},
}

// used lets a store create the key and free it before each of the first n
// requests, so that a dead row of a greater version than theirs awaits them.
func used(t *testing.T, n int, s kv.Store, remove func(*testing.T, kv.Store, *kv.KVPair)) dynamomem.Fault {
	return func(_ context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
		if c.Number <= n {
			remove(t, s, create(t, s))
		}
		return apply()
	}
}

func TestACreateOverDeadRowsInARow(t *testing.T) {
	t.Parallel()
	for name, remove := range removals {
		for _, n := range []int{1, 2, 3, 5} {
			t.Run(fmt.Sprint(name, " ", n, " times"), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					server := newMem()
					theirs, _ := memStore(t, server, ahead(time.Minute))
					s, client := memStore(t, server)
					client.Inject(used(t, n, theirs, remove))
					start := time.Now()
					p, err := s.AtomicPut(t.Context(), "key", kv.WithString("mine"))
					require.NoError(t, err)
					require.Equal(t, n+1, client.Requests())
					require.LessOrEqual(t, time.Since(start), 2*time.Second)
					if n == 1 {
						require.Zero(t, time.Since(start), "the second try is made at once")
					}
					got, err := theirs.Get(t.Context(), "key")
					require.NoError(t, err)
					require.Equal(t, "mine", got.String())
					require.Equal(t, p.Version, got.Version)
				})
			})
		}
	}
}

// Each try of a create is an operation of its own (W2): a late request of an
// earlier one must not be taken for it.
func TestEachTryOfACreateHasItsOwnIdentity(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		theirs, _ := memStore(t, server, ahead(time.Minute))
		s, client := memStore(t, server)
		writers, last := map[string]bool{}, ""
		use := used(t, 3, theirs, removals["deleted"])
		client.Inject(func(ctx context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
			item := c.Input.(*dynamodb.PutItemInput).Item
			writers[item["writer"].(*types.AttributeValueMemberS).Value] = true
			version := item["version"].(*types.AttributeValueMemberN).Value
			require.Greater(t, version, last) // of as many digits
			last = version
			return use(ctx, c, apply)
		})
		_, err := s.AtomicPut(t.Context(), "key")
		require.NoError(t, err)
		require.Len(t, writers, 4)
	})
}

func TestACreateThatMeetsOnlyDeadRowsIsNotApplied(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ deadline, want time.Duration }{
		{0, 10 * time.Second}, {3 * time.Second, 3 * time.Second}, {time.Hour, time.Minute},
	} {
		t.Run(c.deadline.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := newMem()
				theirs, _ := memStore(t, server, ahead(time.Minute))
				s, client := memStore(t, server)
				client.Inject(used(t, 1<<30, theirs, removals["deleted"]))
				ctx := t.Context()
				if c.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, c.deadline)
					defer cancel()
				}
				start := time.Now()
				_, err := s.AtomicPut(ctx, "key", kv.WithString("mine"))
				requireOnly(t, err, kv.ErrThrottled)
				require.ErrorContains(t, err, `"key"`)
				require.Equal(t, ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), err)
				took := time.Since(start)
				require.InDelta(t, c.want, took, float64(1100*time.Millisecond))
				require.Greater(t, client.Requests(), 4)
				require.Less(t, client.Requests(), 20+4*int(took/time.Second), "it pauses")
				_, err = theirs.Get(t.Context(), "key")
				require.ErrorIs(t, err, kv.ErrKeyNotFound)
			})
		})
	}
}

// A lost answer in a later try leaves no doubt but that try's own.
func TestALostAnswerOfALaterTryOfACreate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		fault dynamomem.Fault
		free  bool // the key is used once more before the next attempt
		want  error
	}{
		{"applied", dynamomem.LostAnswer(dynamomem.ErrCut), false, nil},
		{"not applied", dynamomem.Lost(dynamomem.ErrCut), false, nil},
		{"not applied, and a dead row", dynamomem.Lost(dynamomem.ErrCut), true, kv.ErrUncertain},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				server := newMem()
				theirs, _ := memStore(t, server, ahead(time.Minute))
				s, client := memStore(t, server)
				client.Inject(func(ctx context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
					switch {
					case call.Number == 3:
						return c.fault(ctx, call, apply)
					case call.Number <= 2 || c.free:
						return used(t, 1<<30, theirs, removals["deleted"])(ctx, call, apply)
					}
					return apply()
				})
				p, err := s.AtomicPut(t.Context(), "key", kv.WithString("mine"))
				require.Equal(t, 4, client.Requests())
				if c.want == nil {
					require.NoError(t, err)
					got, err := theirs.Get(t.Context(), "key")
					require.NoError(t, err)
					require.Equal(t, p.Version, got.Version)
					return
				}
				requireOnly(t, err, c.want)
			})
		})
	}
}

// mute takes the row out of every answer that a condition failed.
func mute(fault dynamomem.Fault) dynamomem.Fault {
	return func(ctx context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
		out, err := fault(ctx, c, apply)
		var failed *types.ConditionalCheckFailedException
		if errors.As(err, &failed) {
			failed.Item = nil
		}
		return out, err
	}
}

// The row that refused the create is gone when it is read.
func TestACreateOnAnEndpointThatReturnsNoRow(t *testing.T) {
	t.Parallel()
	sweep := map[string]func(t *testing.T, server *dynamomem.Server){
		"a dead row is read": func(t *testing.T, server *dynamomem.Server) {
			theirs, _ := memStore(t, server)
			require.NoError(t, theirs.Delete(t.Context(), "key"))
		},
		"no row is read": func(t *testing.T, server *dynamomem.Server) {
			theirs, _ := memStore(t, server, dynamokv.WithRetention(0))
			require.NoError(t, theirs.Delete(t.Context(), "key"))
		},
	}
	for name, sweep := range sweep {
		for _, n := range []int{1, 3, 1 << 30} {
			t.Run(fmt.Sprint(name, " ", n, " times"), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					server := newMem()
					theirs, _ := memStore(t, server)
					s, client := memStore(t, server)
					tries := 0
					client.Inject(mute(func(_ context.Context, c dynamomem.Call, apply dynamomem.Apply) (any, error) {
						if c.Operation == "GetItem" {
							sweep(t, server)
						} else if tries++; tries <= n {
							require.NoError(t, theirs.Put(t.Context(), "key"))
						}
						return apply()
					}))
					p, err := s.AtomicPut(t.Context(), "key", kv.WithString("mine"))
					if n == 1<<30 {
						requireOnly(t, err, kv.ErrThrottled)
						require.Less(t, tries, 50)
						return
					}
					require.NoError(t, err)
					require.Equal(t, n+1, tries)
					got, err := theirs.Get(t.Context(), "key")
					require.NoError(t, err)
					require.Equal(t, p.Version, got.Version)
					require.Equal(t, "mine", got.String())
				})
			})
		}
	}
}

// An endpoint that has returned rows, and returns none for a create that it
// refused, does not always return them: there was a row.
func TestACreateOnAnEndpointThatReturnsRowsNowAndThen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := newMem()
		s, client := memStore(t, server)
		first := create(t, s)
		_, err := s.AtomicPut(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrKeyExists)
		client.Inject(mute(dynamomem.None))
		start := time.Now()
		_, err = s.AtomicPut(t.Context(), "key")
		var conflict *kv.ConflictError
		require.ErrorAs(t, err, &conflict)
		require.NotNil(t, conflict.Current)
		require.Equal(t, first.Version, conflict.Current.Version)
		require.Zero(t, time.Since(start))
	})
}

// A row whose version has no next is nobody's: the next create would make it
// one that cannot be read.
func TestACreateOverADeadRowOfTheGreatestVersion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const dead = `"version":{"N":"18446744073709551614"},"writer":{"S":"w"},"deleted":{"BOOL":true}`
		s, _ := offlineStore(t, always(dead))
		_, err := s.AtomicPut(t.Context(), "key")
		requireOnly(t, err, kv.ErrFormat)
	})
}

// The clock is set back after a create of unknown outcome. Whoever creates and
// deletes the key again, to keep the first one from landing, is above it.
func TestACreateIsAboveAnEarlierOneOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		skewed := clock.NewSkewed(clock.System, 1, 0)
		s, client := memStore(t, newMem(), dynamokv.WithClock(skewed))
		client.Inject(dynamomem.Late(clock.System, time.Minute, errors.New("answer lost")))
		_, err := s.AtomicPut(t.Context(), "key", kv.WithString("thrown away"))
		uncertain := &kv.UncertainError{}
		require.ErrorAs(t, err, &uncertain)
		client.Inject(nil)
		skewed.Step(-10 * time.Minute)
		p, err := s.AtomicPut(t.Context(), "key")
		require.NoError(t, err)
		require.Greater(t, p.Version, uncertain.Version)
		require.NoError(t, s.AtomicDelete(t.Context(), "key", p))
		time.Sleep(time.Hour)
		_, err = s.Get(t.Context(), "key")
		require.ErrorIs(t, err, kv.ErrKeyNotFound)
	})
}

// A create fails on a row that the endpoint does not return, and that is gone when
// it is read. The next round's version is no lower for that.
func TestACreateThatFailsOnNothingKeepsItsVersion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newMemRig(t)
		began := time.Now()
		r.wire.inject(func(n int, request *http.Request, send next) (*http.Response, error) {
			if n == 1 {
				return awsError(request, 400, "ConditionalCheckFailedException", "The conditional request failed"), nil
			}
			return send(request)
		})
		pair, err := r.AtomicPut(t.Context(), "key")
		require.NoError(t, err)
		require.GreaterOrEqual(t, pair.Version, uint64(began.UnixMicro()), "S3")
		require.Equal(t, 3, r.wire.requests(), "a create, a read, a create")
	})
}

// A version that was seen is not used again, also when it is that of this very
// microsecond.
func TestACreateBeginsAboveTheVersionOfItsMicrosecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := newMemRig(t)
		other := r.another(t)
		pair := create(t, other)
		require.NoError(t, other.AtomicDelete(t.Context(), pair.Key, pair))
		_, err := r.Get(t.Context(), pair.Key)
		var absent *kv.NotFoundError
		require.ErrorAs(t, err, &absent)
		time.Sleep(time.Until(time.UnixMicro(int64(absent.Version))))
		require.EqualValues(t, absent.Version, time.Now().UnixMicro())
		r.wire.inject(nil)
		_, err = r.AtomicPut(t.Context(), pair.Key)
		require.NoError(t, err)
		require.Equal(t, 1, r.wire.requests(), "W7")
	})
}
