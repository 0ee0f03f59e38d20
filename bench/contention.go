package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/dynalock/dynalock/kv"
	"github.com/dynalock/dynalock/lease"
)

// hotKey has 16 goroutines of one process take turns at one key.
func hotKey(ctx context.Context, r *rig) (section, error) {
	s := section{
		title: "One key, sixteen goroutines of one process",
		method: "Each acquires and releases at once, for 20 s, on DynamoDB Local. The wait is from the call of Acquire to its return; the fifteen others\n" +
			"come first, since the queue is first come, first served.",
		table: [][]string{{"Acquisitions per second", "Requests per acquisition", "Most to least, by goroutine", "Wait p50",
			"Wait p99"}},
	}
	table, err := r.table(ctx)
	if err != nil {
		return s, err
	}
	client, wire, err := r.client(table)
	if err != nil {
		return s, err
	}
	var waits [16][]time.Duration
	var failures [16]error
	lasts := pick(r, 20*time.Second, 300*time.Millisecond)
	end := time.Now().Add(lasts)
	var group sync.WaitGroup
	for g := range waits {
		group.Go(func() {
			for time.Now().Before(end) {
				asked := time.Now()
				l, err := client.Acquire(ctx, "hot")
				if err != nil {
					failures[g] = err
					return
				}
				waits[g] = append(waits[g], time.Since(asked))
				if err := l.Release(ctx); err != nil {
					failures[g] = err
					return
				}
			}
		})
	}
	group.Wait()
	if err := errors.Join(failures[:]...); err != nil {
		return s, err
	}
	var counts []int
	var all []time.Duration
	for _, w := range waits {
		counts, all = append(counts, len(w)), append(all, w...)
	}
	s.table = append(s.table, []string{
		fmt.Sprintf("%.0f", float64(len(all))/lasts.Seconds()),
		fmt.Sprintf("%.2f", float64(wire.requests.Load())/float64(len(all))),
		fmt.Sprintf("%.2f", float64(slices.Max(counts))/float64(max(1, slices.Min(counts)))), ms(quantile(all, 0.5)),
		ms(quantile(all, 0.99)),
	})
	return s, closeNow(client)
}

// lostAnswers cuts the connection after each kind of write.
func lostAnswers(ctx context.Context, r *rig) (section, error) {
	s := section{
		title: "A connection cut after the write",
		method: "The request reaches DynamoDB Local, its answer does not come back. From the call to its return; for a heartbeat, whether the lease was\n" +
			"still held, with the same token, two heartbeats later. Slowest of the tries, and how many leases were lost.",
		table: [][]string{{"Write", "Tries", "Slowest", "Lost"}},
	}
	table, err := r.table(ctx)
	if err != nil {
		return s, err
	}
	client, wire, err := r.client(table, lease.WithTTL(3*time.Second))
	if err != nil {
		return s, err
	}
	tries := pick(r, 20, 2)
	var slowest [2]time.Duration
	for i := range tries {
		var l *lease.Lease
		for which, write := range []func() error{
			func() (err error) {
				l, err = client.TryAcquire(ctx, strconv.Itoa(i))
				return err
			},
			func() error { return l.Release(ctx) },
		} {
			wire.loseNext.Store(true)
			began := time.Now()
			if err := write(); err != nil {
				return s, err
			}
			slowest[which] = max(slowest[which], time.Since(began))
			wire.loseNext.Store(false)
		}
	}
	lost := 0
	for i := range pick(r, 5, 1) {
		l, err := client.TryAcquire(ctx, "beat-"+strconv.Itoa(i))
		if err != nil {
			return s, err
		}
		wire.loseNext.Store(true) // the next write is a heartbeat
		if time.Sleep(2 * time.Second); !l.Held() {
			lost++
		}
		if err := l.Release(ctx); err != nil {
			return s, err
		}
	}
	s.table = append(s.table,
		[]string{"acquire", strconv.Itoa(tries), ms(slowest[0]), "0"},
		[]string{"release", strconv.Itoa(tries), ms(slowest[1]), "0"},
		[]string{"heartbeat", strconv.Itoa(pick(r, 5, 1)), "", strconv.Itoa(lost)})
	return s, closeNow(client)
}

// handOver is how long a key lies idle between a release and the next holder.
func handOver(ctx context.Context, r *rig) (section, error) {
	s := section{
		title: "Hand-over after a release",
		method: "One holds for the time given, a tenth more or less, another waits for all of it; from the call of Release to the return of the\n" +
			"other's Acquire, on DynamoDB Local. Inside: two goroutines of a client, which pass the key on with one write. Across: two clients that share nothing but\n" +
			"the table, as processes would; the waiter polls after a tenth of the time since the key last changed hands, from every 50 ms to every second. Writes and reads are those of both, for one hand-over:\n" +
			"the release, the acquire, the wait, and heartbeats.",
		table: [][]string{{"Who", "Held for", "Times", "p50", "p99", "50 ms + 5 % of the hold",
			"Writes each", "Reads each"}},
	}
	p := plot{file: "handover.svg", title: "Hand-over after a release, in milliseconds: median, 0 to 99 %"}
	table, err := r.table(ctx)
	if err != nil {
		return s, err
	}
	a, wireA, err := r.client(table)
	if err != nil {
		return s, err
	}
	b, wireB, err := r.client(table)
	if err != nil {
		return s, err
	}
	for _, c := range []struct {
		who    string
		second *lease.Client
		hold   time.Duration
		times  int
	}{
		{"inside", a, 200 * time.Millisecond, 40}, {"across", b, 200 * time.Millisecond, 60},
		{"across", b, time.Second, 30}, {"across", b, 5 * time.Second, 20},
	} {
		var took []time.Duration
		writes, requests := wireA.puts.Load()+wireB.puts.Load(), wireA.requests.Load()+wireB.requests.Load()
		for i := range pick(r, c.times, 1) {
			// polls come at fixed parts of the wait: spread over them
			hold := c.hold*9/10 + c.hold*time.Duration(i)/time.Duration(5*c.times)
			d, err := oneHandOver(ctx, a, c.second, fmt.Sprint(c.who, c.hold), pick(r, hold, 10*time.Millisecond))
			if err != nil {
				return s, err
			}
			took = append(took, d)
		}
		writes, requests = wireA.puts.Load()+wireB.puts.Load()-writes, wireA.requests.Load()+wireB.requests.Load()-requests
		s.table = append(s.table, []string{c.who, c.hold.String(), strconv.Itoa(len(took)), ms(quantile(took, 0.5)),
			ms(quantile(took, 0.99)), ms(50*time.Millisecond + c.hold/20), each(writes, took), each(requests-writes, took)})
		p.bars = append(p.bars, bar{fmt.Sprintf("%s, held for %v", c.who, c.hold), float64(quantile(took, 0.5)) / 1e6,
			float64(quantile(took, 0)) / 1e6,
			float64(quantile(took, 0.99)) / 1e6, ms(quantile(took, 0.5))})
	}
	s.plots = []plot{p}
	return s, errors.Join(closeNow(a), closeNow(b))
}

// each writes how many requests there were for each time.
func each(requests int64, times []time.Duration) string {
	return fmt.Sprintf("%.1f", float64(requests)/float64(len(times)))
}

func oneHandOver(ctx context.Context, first, second *lease.Client, key string,
	hold time.Duration) (time.Duration, error) {
	held, err := first.Acquire(ctx, key)
	if err != nil {
		return 0, err
	}
	type grant struct {
		l   *lease.Lease
		err error
		at  time.Time
	}
	granted := make(chan grant, 1)
	go func() {
		l, err := second.Acquire(ctx, key)
		granted <- grant{l, err, time.Now()}
	}()
	time.Sleep(hold)
	released := time.Now()
	// its answer was lost: the other has the key by then
	if err := held.Release(ctx); err != nil && !errors.Is(err, kv.ErrUncertain) {
		return 0, err
	}
	g := <-granted
	if g.err != nil {
		return 0, g.err
	}
	return g.at.Sub(released), g.l.Release(ctx)
}
