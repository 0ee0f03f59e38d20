package lease_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/internal/clock"
	"github.com/dynalock/dynalock/internal/dynamomem"
	"github.com/dynalock/dynalock/kv/dynamokv"
	"github.com/dynalock/dynalock/lease"
)

// The rows of the failure table in the package comment, over the DynamoDB
// driver itself, so that its attempts, budgets and outcomes are part of the
// test. Use it inside a synctest bubble.
type cloud struct {
	t      *testing.T
	server *dynamomem.Server
}

func newCloud(t *testing.T) *cloud {
	c := &cloud{t: t, server: dynamomem.New()}
	c.server.CreateTable("locks", "id", "name")
	return c
}

// node makes a client with its own way to the server, on a clock of its own.
func (c *cloud) node(name string, options ...lease.Option) (*lease.Client, *dynamomem.Client, *clock.Skewed) {
	wire := c.server.Client()
	skewed := clock.NewSkewed(clock.System, 1, 0)
	store, err := dynamokv.New(wire, "locks", dynamokv.WithClock(skewed))
	require.NoError(c.t, err)
	client, err := lease.New(store,
		append([]lease.Option{lease.WithTTL(ttl), lease.WithOwner(name), lease.WithClock(skewed)}, options...)...)
	require.NoError(c.t, err)
	c.t.Cleanup(func() {
		wire.Inject(nil)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = client.Close(ctx) // the test may have closed it, or left leases on purpose
		wire.Wait()
	})
	return client, wire, skewed
}

func try(t *testing.T, c *lease.Client, key string) *lease.Lease {
	t.Helper()
	l, err := c.TryAcquire(t.Context(), key)
	require.NoError(t, err)
	return l
}

// keyOf returns the sort key that a request is about.
func keyOf(call dynamomem.Call) string {
	var item map[string]types.AttributeValue
	switch in := call.Input.(type) {
	case *dynamodb.PutItemInput:
		item = in.Item
	case *dynamodb.GetItemInput:
		item = in.Key
	case *dynamodb.UpdateItemInput:
		item = in.Key
	}
	name, _ := item["name"].(*types.AttributeValueMemberS)
	if name == nil {
		return ""
	}
	return name.Value
}

// throttle is DynamoDB's refusal when the table has no capacity left.
func throttle(context.Context, dynamomem.Call, dynamomem.Apply) (any, error) {
	return nil, &types.ProvisionedThroughputExceededException{Message: aws.String("slow down")}
}

// sluggish lets every request take d, but no longer than its caller waits: then the answer is lost.
func sluggish(d time.Duration) dynamomem.Fault {
	return func(ctx context.Context, _ dynamomem.Call, apply dynamomem.Apply) (any, error) {
		out, err := apply()
		if sleep := clock.Sleep(ctx, clock.System, d); sleep != nil {
			return nil, sleep
		}
		return out, err
	}
}

// What is left of the trust when a heartbeat is due, less two attempts: an
// outage that is over by then costs nothing (R3).
func TestOutageForWhichThereIsRoomCostsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		a, wire, _ := c.node("a")
		b, _, _ := c.node("b")
		l := try(t, a, "key")
		got := waitFor(t.Context(), b, "key")
		for range 5 {
			time.Sleep(ttl)
			wire.Inject(dynamomem.Hang)
			time.Sleep(3 * time.Second)
			wire.Inject(nil)
		}
		time.Sleep(ttl)
		require.True(t, l.Held())
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, (<-got).err)
	})
}

func TestOutageLongerThanTheTTLEndsTheLeaseInTimeAndTheClientRecovers(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]dynamomem.Fault{
		"hangs": dynamomem.Hang, "refuses": dynamomem.Lost(dynamomem.ErrCut),
		"answers lost": dynamomem.LostAnswer(dynamomem.ErrCut), "throttles": throttle,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newCloud(t)
				a, wire, _ := c.node("a")
				l := try(t, a, "key")
				time.Sleep(2 * ttl)
				require.True(t, l.Held())
				wire.Inject(fault)
				began := time.Now()
				requireLost(t, l)
				require.LessOrEqual(t, time.Since(began), ttl-time.Second, "at the trust deadline, whatever the network does")
				require.ErrorIs(t, l.Release(t.Context()), lease.ErrLost)
				time.Sleep(2 * ttl)
				wire.Inject(nil)
				ctx, cancel := context.WithTimeout(t.Context(), 4*ttl)
				defer cancel()
				again, err := a.Acquire(ctx, "key")
				require.NoError(t, err)
				require.Greater(t, again.Token(), l.Token())
				require.NoError(t, again.Release(t.Context()))
			})
		})
	}
}

func TestThrottlingForFiveMinutesLosesNothingThatSometimesGetsThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		a, wire, _ := c.node("a", lease.WithTTL(lease.DefaultTTL))
		l := try(t, a, "key")
		n := atomic.Int64{}
		wire.Inject(func(ctx context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
			if n.Add(1)%4 != 0 {
				return throttle(ctx, call, apply)
			}
			return apply()
		})
		for range 60 {
			time.Sleep(5 * time.Second)
			require.True(t, l.Held())
		}
		require.NoError(t, l.Release(t.Context()))
		require.NoError(t, try(t, a, "other").Release(t.Context()))
	})
}

func TestAnswersJustWithinTheAttemptTimeoutAreGoodEnoughAndJustBeyondAreNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newCloud(t)
		a, wire, _ := c.node("a") // the attempt timeout is 1 s
		l := try(t, a, "key")
		wire.Inject(sluggish(950 * time.Millisecond))
		time.Sleep(10 * ttl)
		require.True(t, l.Held())
		require.NoError(t, try(t, a, "other").Release(t.Context()))

		// Beyond it every answer is lost, and every write is recognised by the
		// attempt after it, if that one's answer comes.
		var odd atomic.Int64
		late := sluggish(1050 * time.Millisecond)
		wire.Inject(func(ctx context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
			if odd.Add(1)%2 == 1 {
				return late(ctx, call, apply)
			}
			return apply()
		})
		time.Sleep(10 * ttl)
		require.True(t, l.Held())
		wire.Inject(late)
		requireLost(t, l)
	})
}

// One lost answer on each write of the protocol costs an attempt, not a lease,
// and leaves nothing behind.
func TestI6LostAnswerOnEachWriteOfTheProtocol(t *testing.T) {
	t.Parallel()
	writes := map[string]struct {
		prefix string
		run    func(t *testing.T, c *lease.Client)
	}{
		"open": {"session/", func(t *testing.T, c *lease.Client) {
			require.NoError(t, try(t, c, "key").Release(t.Context()))
		}},
		"heartbeat": {"session/", func(t *testing.T, c *lease.Client) { time.Sleep(ttl) }},
		"acquire": {"lease/", func(t *testing.T, c *lease.Client) {
			require.NoError(t, try(t, c, "key").Release(t.Context()))
		}},
		"release":  {"lease/held", nil},
		"update":   {"lease/held", nil},
		"handover": {"lease/held", nil},
		"close":    {"session/", nil},
	}
	for name, write := range writes {
		for kind, fault := range map[string]dynamomem.Fault{
			"answer lost": dynamomem.LostAnswer(dynamomem.ErrCut), "request lost": dynamomem.Lost(dynamomem.ErrCut),
			"twice": dynamomem.Duplicate(dynamomem.ErrCut),
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := newCloud(t)
					a, wire, _ := c.node("a")
					if name != "open" {
						require.NoError(t, try(t, a, "warm").Release(t.Context()))
					}
					held := map[string]*lease.Lease{}
					if strings.HasSuffix(write.prefix, "held") {
						held["held"] = try(t, a, "held")
					}
					var faults atomic.Int64
					wire.Inject(func(ctx context.Context, call dynamomem.Call, apply dynamomem.Apply) (any, error) {
						if call.Operation != "GetItem" && strings.HasPrefix(keyOf(call), write.prefix) && faults.CompareAndSwap(0, 1) {
							return fault(ctx, call, apply)
						}
						return apply()
					})
					began := time.Now()
					switch name {
					case "release":
						require.NoError(t, held["held"].Release(t.Context()))
					case "update":
						require.NoError(t, held["held"].Update(t.Context(), []byte("v")))
						require.NoError(t, held["held"].Release(t.Context()))
					case "handover":
						got := waitFor(t.Context(), a, "held")
						synctest.Wait()
						require.NoError(t, held["held"].Release(t.Context()))
						g := <-got
						require.NoError(t, g.err)
						require.NoError(t, g.Release(t.Context()))
					case "close":
						require.NoError(t, a.Close(t.Context()))
					default:
						write.run(t, a)
					}
					require.EqualValues(t, 1, faults.Load())
					if name != "heartbeat" {
						require.LessOrEqual(t, time.Since(began), 100*time.Millisecond)
					}
					b, _, _ := c.node("b")
					for _, key := range []string{"key", "held"} {
						require.NoError(t, try(t, b, key).Release(t.Context()))
					}
				})
			})
		}
	}
}

func TestStepsOfTheWallClockByAnHour(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		for _, who := range []string{"holder", "waiter"} {
			t.Run(fmt.Sprint(who, " by ", step), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := newCloud(t)
					a, _, holder := c.node("a")
					b, _, waiter := c.node("b")
					l := try(t, a, "key")
					got := waitFor(t.Context(), b, "key")
					time.Sleep(ttl)
					map[string]*clock.Skewed{"holder": holder, "waiter": waiter}[who].Step(step)
					time.Sleep(3 * ttl)
					if who == "holder" && step > 0 {
						require.False(t, l.Held(), "a holder believes the clock that counted most (R4)")
						g := <-got
						require.NoError(t, g.err)
						require.Greater(t, g.Token(), l.Token())
						require.NoError(t, try(t, a, "other").Release(t.Context()))
						return
					}
					require.True(t, l.Held())
					require.Empty(t, got)
					require.NoError(t, l.Release(t.Context()))
					require.NoError(t, (<-got).err)
				})
			})
		}
	}
}

// A pause stops the process, as SIGSTOP or a frozen virtual machine does:
// nothing of it runs and, when frozen, its monotonic clock stands.
func TestPausesOfTheHolder(t *testing.T) {
	t.Parallel()
	for _, frozen := range []bool{true, false} {
		for _, pause := range []time.Duration{ttl / 3, 2 * ttl} {
			t.Run(fmt.Sprint("frozen ", frozen, " for ", pause), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := newCloud(t)
					a, wire, skewed := c.node("a")
					b, _, _ := c.node("b")
					l := try(t, a, "key")
					got := waitFor(t.Context(), b, "key")
					time.Sleep(2 * ttl)
					wire.Inject(dynamomem.Hang)
					if frozen {
						skewed.FreezeMonotonic()
					}
					time.Sleep(pause)
					if frozen {
						skewed.ThawMonotonic()
					}
					held := l.Held() // what the process asks first when it wakes, before any timer has run
					wire.Inject(nil)
					require.Equal(t, pause < ttl/2, held)
					if held {
						time.Sleep(3 * ttl)
						require.True(t, l.Held())
						require.Empty(t, got)
						require.NoError(t, l.Release(t.Context()))
					}
					g := <-got
					require.NoError(t, g.err)
					require.Greater(t, g.Token(), l.Token())
					require.False(t, l.Held())
				})
			})
		}
	}
}

func TestI5ThousandLeasesOfACrashedProcessPassTogetherWithOneKill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		w := newWorld(t)
		a, crashed := w.client("a", lease.WithTTL(time.Minute)) // longer than the real time the test takes
		b, link := w.client("b", lease.WithTTL(time.Minute), lease.WithPoll(time.Second, 10*time.Second))
		var waiting []<-chan grant
		for i := range n {
			w.acquire(a, fmt.Sprint("key", i))
		}
		for i := range n {
			waiting = append(waiting, waitFor(t.Context(), b, fmt.Sprint("key", i)))
		}
		time.Sleep(time.Minute)
		crashed.SetCut(true)
		died := time.Now()
		link.Take()
		for _, got := range waiting {
			g := <-got
			require.NoError(t, g.err)
			require.True(t, g.TakenOver())
			require.LessOrEqual(t, g.at.Sub(died), (60+60/16+20)*time.Second*103/100+11*time.Second)
		}
		calls := link.Take()
		require.Equal(t, 1, calls["AtomicDelete"], "one kill")
		require.InDelta(t, n, calls["AtomicPut"], 10, "a write each, and heartbeats")
	})
}
