package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/dynalock/dynalock/bench/model"
)

// inModel has package model measure, in a test of its own, since only a test has
// a bubble.
func inModel(ctx context.Context, r *rig, p model.Plan) (found model.Results, err error) {
	plan, results := filepath.Join(r.folder, "plan.json"), filepath.Join(r.folder, "results.json")
	text, err := json.Marshal(p)
	if err != nil {
		return found, err
	}
	if err := os.WriteFile(plan, text, 0o600); err != nil {
		return found, err
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-count", "1", "-timeout", "2h", "-run", "^TestMeasure$",
		"github.com/dynalock/dynalock/bench/model")
	cmd.Env = append(os.Environ(), "DYNALOCK_BENCH_PLAN="+plan, "DYNALOCK_BENCH_RESULTS="+results)
	if out, err := cmd.CombinedOutput(); err != nil {
		return found, fmt.Errorf("%w: %s", err, out)
	}
	if text, err = os.ReadFile(results); err != nil {
		return found, err
	}
	return found, json.Unmarshal(text, &found)
}

// offered is what partitions that are full serve of a load of locks.
func offered(ctx context.Context, r *rig) (section, error) {
	s := section{
		title: "Lock cycles offered to full partitions",
		method: "A hundred processes take and release keys of their own, as many a second as offered, whatever became of the ones before. DynamoDB is\n" +
			"a model, in memory and in simulated time: each partition takes 1,000 write units and 3,000 read units a second, throttles what is beyond, and\n" +
			"answers after 5 ms. So a partition has units for 500 cycles a second. Each process heartbeats a session too, with the default TTL of 15 s.\n" +
			"Refused is the part of the calls that were throttled until they gave up: TryAcquire does after 3 s. 10 s each, the first quarter left out.",
		table: [][]string{{"Shards", "Offered per second", "Served per second", "Of the limit", "p50", "p99", "Refused",
			"Requests per cycle", "Slowest heartbeat", "Sessions lost"}},
	}
	p := plot{file: "throughput.svg", title: "Lock cycles served, as a fraction of what the partitions have units for",
		line: 1, meaning: "the limit"}
	var plan model.Plan
	for _, shards := range pick(r, []int{1, 4, 16}, []int{1}) {
		for _, rate := range pick(r, []int{200, 750, 3000, 12_000}, []int{200}) {
			plan.Offers = append(plan.Offers, model.Offer{Shards: shards, Processes: pick(r, 100, 5), Rate: rate,
				Lasts: pick(r, 10*time.Second, time.Second)})
		}
	}
	found, err := inModel(ctx, r, plan)
	if err != nil {
		return s, err
	}
	for _, o := range found.Served {
		fraction := fmt.Sprintf("%.2f", o.Fraction)
		s.table = append(s.table, []string{strconv.Itoa(o.Shards), strconv.Itoa(o.Rate), fmt.Sprintf("%.0f", o.PerSecond),
			fraction, ms(o.P50), ms(o.P99), fmt.Sprintf("%.0f %%", 100*o.Refused), fmt.Sprintf("%.1f", o.Attempts),
			ms(o.Heartbeat), strconv.Itoa(o.Lost)})
		p.bars = append(p.bars, bar{name: fmt.Sprintf("%d shards, %d offered", o.Shards, o.Rate), value: o.Fraction,
			label: fraction})
	}
	s.plots = []plot{p}
	return s, nil
}

// storm is a zone that dies, at a hundredth of 100,000 sessions with a million leases.
func storm(ctx context.Context, r *rig) (section, error) {
	s := section{
		title: "A zone that dies",
		method: "1,000 sessions hold ten leases each; 330 of them die at once, and for each of their leases one of the 670 waits. In the same model. From\n" +
			"the deaths until half of the 3,300 leases were held again, and until all were; the requests of the living in that time; and, before it, what\n" +
			"those who wait send.",
		table: [][]string{{"Shards", "Requests per second before", "Half held again", "All", "Requests until then", "Throttled",
			"Slowest heartbeat", "Sessions of the living lost"}},
	}
	var plan model.Plan
	for _, shards := range pick(r, []int{1, 4}, []int{1}) {
		plan.Storms = append(plan.Storms, model.Storm{Shards: shards, Dead: pick(r, 330, 3), Living: pick(r, 670, 7),
			Leases: pick(r, 10, 2)})
	}
	found, err := inModel(ctx, r, plan)
	if err != nil {
		return s, err
	}
	for _, o := range found.Recovered {
		s.table = append(s.table, []string{strconv.Itoa(o.Shards), fmt.Sprintf("%.0f", o.Waiting),
			fmt.Sprintf("%.1f s", o.Half.Seconds()), fmt.Sprintf("%.1f s", o.All.Seconds()), strconv.Itoa(o.Requests),
			strconv.Itoa(o.Throttled), ms(o.Heartbeat), strconv.Itoa(o.Lost)})
	}
	return s, nil
}
