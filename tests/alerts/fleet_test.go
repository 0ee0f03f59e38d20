package alerts_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/dynalock/dynalock/election"
	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/kv/memkv"
	"github.com/dynalock/dynalock/lease"
	"github.com/dynalock/dynalock/metrics"
)

// repository is the root, by the symbolic link that tests/docs_test.go explains.
const repository = "../testdata/repository"

// interval is how often the fleet is scraped and its rules evaluated.
const interval = 15 * time.Second

// rule is an alert of infra/alerts.yaml.
type rule struct {
	Alert       string
	Expr        string
	For         time.Duration
	Labels      map[string]string
	Annotations map[string]string
}

func readRules(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile(repository + "/infra/alerts.yaml")
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Name  string
			Rules []rule
		}
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(text)))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&file))
	require.Len(t, file.Groups, 1)
	require.NotEmpty(t, file.Groups[0].Rules)
	return file.Groups[0].Rules
}

// fleet are processes that are scraped, and the alerts on them. Use it inside a
// synctest bubble.
type fleet struct {
	t         *testing.T
	store     *memkv.Store
	processes []*process
	scrapes   scrapes
	rules     []rule
	exprs     []expression
	// pending is since when each element of a rule's result has been there.
	pending map[string]time.Time
	fired   map[string]bool
}

// process is a client whose way to the store can fail.
type process struct {
	*lease.Client
	metrics *metrics.Metrics
	failure atomic.Pointer[error]
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, store: memkv.New(), rules: readRules(t), pending: map[string]time.Time{}, fired: map[string]bool{}}
	for _, r := range f.rules {
		f.exprs = append(f.exprs, parsePromQL(t, r.Expr))
	}
	return f
}

// start starts a process on the fleet's store, or on another, with the default
// options or others.
func (f *fleet) start(store kv.Store, options ...lease.Option) *process {
	f.t.Helper()
	m, err := metrics.New()
	require.NoError(f.t, err)
	p := &process{metrics: m}
	failing := kv.Instrument(store, func(ctx context.Context, _ kv.Call, next func(context.Context) error) error {
		if failure := p.failure.Load(); failure != nil {
			return *failure
		}
		return next(ctx)
	})
	p.Client, err = lease.New(kv.Instrument(failing, m.Hook),
		append([]lease.Option{lease.WithObserver(m.Observer())}, options...)...)
	require.NoError(f.t, err)
	f.t.Cleanup(func() {
		p.fail(nil)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = p.Close(ctx) // leases are left on purpose
	})
	f.processes = append(f.processes, p)
	return p
}

// fail makes all requests of the process fail with err, until nil.
func (p *process) fail(err error) {
	if err == nil {
		p.failure.Store(nil)
		return
	}
	p.failure.Store(&err)
}

// hold makes the process hold a key.
func (f *fleet) hold(p *process, key string) *lease.Lease {
	f.t.Helper()
	l, err := p.Acquire(f.t.Context(), key)
	require.NoError(f.t, err)
	return l
}

// campaign makes the process a candidate until its client is closed.
func (f *fleet) campaign(p *process, name string) (stop context.CancelFunc) {
	f.t.Helper()
	e, err := election.New(p.Client, name)
	require.NoError(f.t, err)
	ctx, cancel := context.WithCancel(f.t.Context())
	go func() {
		_ = e.Run(ctx, func(ctx context.Context, _ *election.Term) error {
			<-ctx.Done()
			return nil
		})
	}()
	return cancel
}

// run lets time pass. It scrapes all processes, each at a moment of its own, and
// evaluates the rules.
func (f *fleet) run(d time.Duration) {
	f.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		for n, p := range f.processes {
			time.Sleep(interval / time.Duration(len(f.processes)))
			synctest.Wait()
			var text strings.Builder
			require.NoError(f.t, p.metrics.WritePrometheus(&text))
			f.scrapes.scrape(f.t, time.Now(), fmt.Sprint("process-", n), text.String())
		}
		f.evaluate()
	}
}

func (f *fleet) evaluate() {
	now := time.Now()
	for n, r := range f.rules {
		there := map[string]bool{}
		for _, v := range f.exprs[n].eval(&f.scrapes, now) {
			element := r.Alert + keyOf(v.labels)
			there[element] = true
			if _, known := f.pending[element]; !known {
				f.pending[element] = now
			}
			if now.Sub(f.pending[element]) >= r.For {
				f.fired[r.Alert] = true
			}
		}
		for element := range f.pending {
			if strings.HasPrefix(element, r.Alert+"{") && !there[element] || element == r.Alert && !there[element] {
				delete(f.pending, element)
			}
		}
	}
}

// alerts returns which alerts have fired since it was called last.
func (f *fleet) alerts() map[string]bool {
	fired := f.fired
	f.fired = map[string]bool{}
	return fired
}
