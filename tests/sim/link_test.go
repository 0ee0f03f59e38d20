package sim_test

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/dynalock/dynalock/internal/dynamomem"
)

// link is the network between the driver of one node and the server. It has the
// methods of dynamokv.Client. What becomes of a request is drawn from the seed,
// the node, the request's kind and row, and how many such there were: not from
// the order in which goroutines happen to run.
type link struct {
	node *node
	wire *dynamomem.Client // without faults: called when a request lands

	mu     sync.Mutex
	counts map[string]uint64
	// outward, inward: this direction is cut. dark: the server is out of reach,
	// and connections to it fail at once.
	outward, inward, dark bool
	// spoil, if set, is what the server makes of every request.
	spoil spoil
	// clear: no more faults; gone: the node has crashed and is being cleared away.
	clear, gone bool
	// slowDeletes is by how much a delete of a lease row may be late when all is clear.
	slowDeletes time.Duration
	// mute is how many of the next writes of lease rows get no answer.
	mute int
}

// request is one attempt of the driver's on its way.
type request struct {
	op    string
	row   string
	put   map[string]types.AttributeValue // nil: a read
	serve func() (any, error)
}

// answer is what the driver gets back.
type answer struct {
	out any
	err error
}

var errNotSimulated = errors.New("sim: the lease layer is not expected to send this")

func (l *link) GetItem(ctx context.Context, in *dynamodb.GetItemInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.GetItemOutput, error) {
	out, err := l.send(ctx, request{op: "get", row: nameOf(in.Key),
		serve: func() (any, error) { return l.wire.GetItem(context.Background(), in) }})
	if err != nil {
		return nil, err
	}
	return out.(*dynamodb.GetItemOutput), nil
}

func (l *link) PutItem(ctx context.Context, in *dynamodb.PutItemInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.PutItemOutput, error) {
	op := "put"
	if in.Item["deleted"] != nil {
		op = "delete"
	}
	out, err := l.send(ctx, request{op: op, row: nameOf(in.Item), put: in.Item,
		serve: func() (any, error) { return l.wire.PutItem(context.Background(), in) }})
	if err != nil {
		return nil, err
	}
	return out.(*dynamodb.PutItemOutput), nil
}

func (l *link) UpdateItem(context.Context, *dynamodb.UpdateItemInput,
	...func(*dynamodb.Options)) (*dynamodb.UpdateItemOutput, error) {
	l.node.w.fail("harness", "UpdateItem was sent")
	return nil, errNotSimulated
}

func (l *link) Query(ctx context.Context, in *dynamodb.QueryInput,
	_ ...func(*dynamodb.Options)) (*dynamodb.QueryOutput, error) {
	out, err := l.send(ctx, request{op: "query", row: "*",
		serve: func() (any, error) { return l.wire.Query(context.Background(), in) }})
	if err != nil {
		return nil, err
	}
	return out.(*dynamodb.QueryOutput), nil
}

func nameOf(item map[string]types.AttributeValue) string {
	name, _ := item["name"].(*types.AttributeValueMemberS)
	return name.Value
}

// send is one attempt, from the driver's call to its return.
func (l *link) send(ctx context.Context, r request) (any, error) {
	w := l.node.w
	if err := ctx.Err(); err != nil {
		return nil, sendError(r, err)
	}
	w.entered(l.node, r)
	f := l.fate(r)
	reply := make(chan answer, 1)
	l.node.clock.whenRunning(func() {
		if ctx.Err() == nil { // S6: nothing is sent after the operation returned
			l.launch(f, r, reply)
		}
	})
	select {
	case a := <-reply:
		w.acknowledged(l.node, r, a.err)
		return a.out, a.err
	case <-ctx.Done():
		return nil, sendError(r, ctx.Err())
	}
}

// fate is what the network does with a request.
type fate struct {
	there, back time.Duration // latencies
	// lands: it acts on the table. again: once more, that much later; answered: the driver is told.
	lands, answered bool
	again           time.Duration
	// refusal, if set, is the answer.
	refusal error
	// cut is after which time the driver sees the connection break, 0: never.
	cut time.Duration
}

// fate draws it.
func (l *link) fate(r request) fate {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := l.node.w
	kind := r.op + w.alias(r.row)
	l.counts[kind]++
	rng := w.rng(fmt.Sprint(l.node.name, " ", kind, " ", l.counts[kind]))
	weather := &w.weather
	f := fate{lands: true, answered: true, there: weather.latency(rng), back: weather.latency(rng)}
	if l.clear {
		f.there = latency(rng, time.Millisecond, 8*time.Millisecond)
		f.back = latency(rng, time.Millisecond, 8*time.Millisecond)
		if classOf(r) == "delete lease" {
			f.there += latency(rng, 0, l.slowDeletes)
		}
		if l.mute > 0 && classOf(r) == "put lease" {
			l.mute--
			f.answered = false
		}
		return f
	}
	if wide, ok := weather.widened[classOf(r)]; ok {
		f.there += latency(rng, 0, wide.there)
		f.back += latency(rng, 0, wide.back)
	}
	breaks := time.Duration(0)
	if rng.IntN(2) == 0 {
		breaks = f.there + f.back + latency(rng, 0, 200*time.Millisecond)
	}
	dice := rng.Float64()
	for _, fault := range []struct {
		p   float64
		act func()
	}{
		{weather.lost, func() { f.lands, f.answered, f.cut = false, false, breaks }},
		{weather.lostAnswer, func() { f.answered, f.cut = false, breaks }},
		{weather.late, func() {
			f.there, f.answered, f.cut = latency(rng, 100*time.Millisecond, weather.lateness), false, breaks
		}},
		{weather.double, func() {
			f.answered, f.cut, f.again = false, breaks, latency(rng, time.Millisecond, weather.lateness)
		}},
		{weather.throttle, func() {
			f.lands = false
			f.refusal = dynamomem.Answer("PutItem", 400,
				&types.ProvisionedThroughputExceededException{Message: aws.String("simulated")})
		}},
		{weather.broken, func() {
			f.lands = rng.IntN(2) == 0
			f.refusal = dynamomem.Answer("PutItem", 500, &types.InternalServerError{Message: aws.String("simulated")})
		}},
	} {
		if dice < fault.p {
			fault.act()
			break
		}
		dice -= fault.p
	}
	if l.spoil != nil && (f.lands || f.refusal != nil) {
		l.spoil(&f, r, rng)
	}
	return f
}

// launch puts a request on the wire.
func (l *link) launch(f fate, r request, reply chan<- answer) {
	w := l.node.w
	l.mu.Lock()
	outward, dark, gone := l.outward, l.dark, l.gone
	l.mu.Unlock()
	switch {
	case gone:
		l.deliver(time.Millisecond, reply, answer{err: sendError(r, dynamomem.ErrCut)})
		return
	case dark:
		l.deliver(f.there, reply, answer{err: sendError(r, &net.OpError{Op: "dial", Net: "tcp", Err: dynamomem.ErrCut})})
		return
	case outward:
		f.lands, f.answered, f.again, f.refusal = false, false, 0, nil
	}
	if f.cut > 0 {
		l.deliver(f.cut, reply, answer{err: sendError(r, dynamomem.ErrCut)})
	}
	if !f.lands && f.refusal == nil {
		w.record(l.node, r.op+" lost", r.row, 0)
		return
	}
	if f.lands {
		w.underway(r, 1)
	}
	w.after(f.there, func() {
		a := answer{err: f.refusal}
		if f.lands {
			out, err := w.land(l.node, r)
			if f.refusal == nil {
				a = answer{out, err}
			}
		}
		if f.answered {
			l.deliver(f.back, reply, a)
		}
		if f.again > 0 {
			w.underway(r, 1)
			w.after(f.again, func() { _, _ = w.land(l.node, r) })
		}
	})
}

// deliver brings the driver an answer, unless this direction is cut when it arrives.
func (l *link) deliver(after time.Duration, reply chan<- answer, a answer) {
	l.node.w.after(after, func() {
		l.node.clock.whenRunning(func() {
			l.mu.Lock()
			if l.gone {
				a = answer{err: dynamomem.ErrCut}
			}
			cut := l.inward && !l.gone
			l.mu.Unlock()
			if cut {
				return
			}
			select {
			case reply <- a:
			default: // the connection broke before
			}
		})
	})
}

// set changes the state of the link.
func (l *link) set(change func(*link)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
}

func sendError(r request, err error) error {
	return &smithy.OperationError{ServiceID: "DynamoDB", OperationName: r.op, Err: err}
}

// latency is anything from least to most, to the nanosecond.
func latency(rng *rand.Rand, least, most time.Duration) time.Duration {
	if most <= least {
		return least + 1
	}
	return least + time.Duration(rng.Int64N(int64(most-least)))
}

// rng returns the random numbers that belong to a name under this seed.
func (w *world) rng(name string) *rand.Rand {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return rand.New(rand.NewPCG(w.seed, h.Sum64()))
}
