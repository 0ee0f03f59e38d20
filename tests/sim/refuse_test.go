package sim_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"

	"github.com/dynalock/dynalock/internal/dynamomem"
)

// trouble is what else goes wrong in a run. It is drawn from numbers of its
// own, so that a run without any is what its seed has always been.
type trouble struct {
	// The mean times between these, per node; 0: none.
	refusals, slowErrors, wrongClocks time.Duration
	// deletions is the mean time between rows that somebody deletes by hand.
	deletions time.Duration
	// operator: a process does nothing but sweep.
	operator bool
}

func newTrouble(rng *rand.Rand) trouble {
	often := func(p float64) time.Duration {
		if rng.Float64() < p {
			return latency(rng, 8*time.Second, 40*time.Second)
		}
		return 0
	}
	return trouble{refusals: often(0.3), slowErrors: often(0.3), wrongClocks: often(0.3), deletions: often(0.3) / 4,
		operator: rng.IntN(4) == 0}
}

// spoil changes the fate of a request that reaches the server, which answers it with an error.
type spoil func(f *fate, r request, rng *rand.Rand)

// refusals are what somebody has to mend.
var refusals = []struct {
	name   string
	status int
	err    error
}{
	{"no permission", 400, &smithy.GenericAPIError{Code: "AccessDeniedException", Message: "simulated"}},
	{"no table", 400, &types.ResourceNotFoundException{Message: aws.String("simulated")}},
	{"expired credentials", 400, &smithy.GenericAPIError{Code: "ExpiredTokenException", Message: "simulated"}},
	{"unknown credentials", 400, &smithy.GenericAPIError{Code: "UnrecognizedClientException", Message: "simulated"}},
	{"a proxy", 403, &smithy.GenericAPIError{Code: "UnknownError", Message: "simulated"}},
}

// refuse lets the server refuse what a node asks, for a while or for longer
// than a waiter goes on (WithRefusedLimit).
func (n *node) refuse(ctx context.Context, rng *rand.Rand) {
	r := refusals[rng.IntN(len(refusals))]
	n.w.mu.Lock()
	if n.refused == 0 {
		n.refused = n.w.elapsed()
	}
	n.w.mu.Unlock()
	d, spoil := latency(rng, 100*time.Millisecond, 5*n.ttl), answers(r.status, r.err)
	if rng.IntN(4) > 0 {
		n.spoiled(ctx, d, r.name, spoil)
		return
	}
	n.spoiled(ctx, d, r.name+" to see sessions", func(f *fate, r request, rng *rand.Rand) {
		if classOf(r) == "get session" {
			spoil(f, r, rng)
		}
	})
}

// answers is a server that does nothing and says so.
func answers(status int, err error) spoil {
	return func(f *fate, _ request, _ *rand.Rand) {
		f.lands, f.again = false, 0
		f.refusal = dynamomem.Answer("simulated", status, err)
	}
}

// failSlowly lets the server take seconds and fail then, with what was asked
// done or not.
func (n *node) failSlowly(ctx context.Context, rng *rand.Rand) {
	n.spoiled(ctx, latency(rng, 100*time.Millisecond, 3*n.ttl), "slow errors", func(f *fate, _ request, rng *rand.Rand) {
		f.lands, f.again, f.cut = rng.IntN(2) == 0, 0, 0
		f.refusal = dynamomem.Answer("simulated", 500, &types.InternalServerError{Message: aws.String("simulated")})
		slow := latency(rng, 0, 6*time.Second)
		if rng.IntN(2) == 0 {
			f.there += slow
		} else {
			f.back += slow
		}
	})
}

// mistime sets the clock of a node wrong for seconds, so that the server refuses
// its signatures. Where a freeze stops the monotonic clock, no clock goes back
// (protocol, section 7), and where tombstones are swept none is that wrong:
// there the server alone believes that it is.
func (n *node) mistime(ctx context.Context, rng *rand.Rand) {
	d := latency(rng, 16*time.Minute, time.Hour)
	message := "Signature not yet current: simulated"
	if rng.IntN(2) == 0 {
		d, message = -d, "Signature expired: simulated"
	}
	if n.w.weather.stopMonotonic || n.w.weather.sweeps {
		d = 0
	}
	n.clock.step(d)
	n.spoiled(ctx, latency(rng, 100*time.Millisecond, 20*time.Second), fmt.Sprint("clock off by ", d),
		answers(400, &smithy.GenericAPIError{Code: "InvalidSignatureException", Message: message}))
	n.clock.step(-d)
}

// spoiled spoils every request of a node for a while.
func (n *node) spoiled(ctx context.Context, d time.Duration, what string, s spoil) {
	n.troubles(true, d, what)
	n.link.set(func(l *link) { l.spoil = s })
	n.w.sleep(ctx, d)
	n.link.set(func(l *link) { l.spoil = nil })
	n.troubles(false, d, what+" over")
}
