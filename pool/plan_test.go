package pool_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dynalock/dynalock/pool"
)

// planCase is a random argument of the planner.
type planCase struct {
	members    []pool.PlanMember
	partitions []pool.PlanPartition
}

// randomPlan draws members, of whom some are bounded or cordoned unless plain,
// and partitions, of which some have owners that are members or have gone.
func randomPlan(r *rand.Rand, plain, weighted bool) planCase {
	var c planCase
	for i := range r.IntN(9) {
		m := pool.PlanMember{ID: fmt.Sprintf("member %x", r.Uint32())}
		if !plain && i > 0 {
			m.Max, m.Cordoned = max(0, r.IntN(30)-10), r.IntN(5) == 0
		}
		c.members = append(c.members, m)
	}
	for i := range r.IntN(60) {
		p := pool.PlanPartition{Name: fmt.Sprint(i), Weight: 1}
		if weighted && r.IntN(2) == 0 {
			p.Weight = 1 + r.IntN(100)
		}
		if owner := r.IntN(len(c.members) + 3); owner < len(c.members) {
			p.Owner = c.members[owner*owner/len(c.members)].ID // unevenly
		} else if owner == len(c.members) {
			p.Owner = "gone"
		}
		c.partitions = append(c.partitions, p)
	}
	return c
}

func (c planCase) plan() []string { return pool.Plan(c.members, c.partitions) }

// loads returns the weights and the numbers that the members have under a plan,
// those of members that have nothing included.
func (c planCase) loads(owners []string) (weights, counts map[string]int) {
	weights, counts = map[string]int{}, map[string]int{}
	for _, m := range c.members {
		weights[m.ID], counts[m.ID] = 0, 0
	}
	for i, owner := range owners {
		if owner != "" {
			weights[owner] += c.partitions[i].Weight
			counts[owner]++
		}
	}
	return weights, counts
}

// forRandomPlans checks 500 plans, and 20,000 every night.
func forRandomPlans(t *testing.T, plain, weighted bool, check func(t *testing.T, r *rand.Rand, c planCase)) {
	t.Parallel()
	seeds := uint64(500)
	if long() {
		seeds = 20_000
	}
	for seed := range seeds {
		r := rand.New(rand.NewPCG(seed, 1))
		c := randomPlan(r, plain, weighted)
		check(t, r, c)
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, c)
		}
	}
}

func TestPlanDoesNotDependOnTheOrderOfItsArguments(t *testing.T) {
	forRandomPlans(t, false, true, func(t *testing.T, r *rand.Rand, c planCase) {
		want := map[string]string{}
		for i, owner := range c.plan() {
			want[c.partitions[i].Name] = owner
		}
		r.Shuffle(len(c.members), func(i, j int) { c.members[i], c.members[j] = c.members[j], c.members[i] })
		r.Shuffle(len(c.partitions), func(i, j int) { c.partitions[i], c.partitions[j] = c.partitions[j], c.partitions[i] })
		got := map[string]string{}
		for i, owner := range c.plan() {
			got[c.partitions[i].Name] = owner
		}
		require.Equal(t, want, got)
	})
}

func TestPlanThatIsCarriedOutIsPlannedAgain(t *testing.T) {
	forRandomPlans(t, false, true, func(t *testing.T, _ *rand.Rand, c planCase) {
		owners := c.plan()
		for i := range c.partitions {
			c.partitions[i].Owner = owners[i]
		}
		require.Equal(t, owners, c.plan())
	})
}

func TestPlanIsEvenWithAsFewMovesAsCanBe(t *testing.T) {
	forRandomPlans(t, true, false, func(t *testing.T, _ *rand.Rand, c planCase) {
		owners := c.plan()
		n, w := len(c.partitions), len(c.members)
		if w == 0 {
			require.NotContains(t, owners, "member")
			return
		}
		_, counts := c.loads(owners)
		for _, count := range counts {
			require.True(t, count == n/w || count == (n+w-1)/w, "%d of %d for %d", count, n, w)
		}
		// The n%w members that have most now keep one more than the others:
		// whatever is above that has to move.
		had := map[string]int{}
		moved := 0
		for i, p := range c.partitions {
			if slices.ContainsFunc(c.members, func(m pool.PlanMember) bool { return m.ID == p.Owner }) {
				had[p.Owner]++
				if owners[i] != p.Owner {
					moved++
				}
			}
		}
		least := 0
		for i, count := range slices.Backward(slices.Sorted(maps.Values(had))) {
			quota := n / w
			if len(had)-1-i < n%w {
				quota++
			}
			least += max(0, count-quota)
		}
		require.Equal(t, least, moved)
	})
}

func TestPlanWithWeightsLeavesNothingThatAMoveWouldImprove(t *testing.T) {
	forRandomPlans(t, true, true, func(t *testing.T, _ *rand.Rand, c planCase) {
		owners := c.plan()
		weights, _ := c.loads(owners)
		for i, owner := range owners {
			for other, load := range weights {
				if weights[owner]-load > c.partitions[i].Weight { // a require of each is slow
					require.Fail(t, "not level", "%s should give %d to %s", owner, i, other)
				}
			}
		}
	})
}

func TestPlanKeepsToBoundsAndCordons(t *testing.T) {
	forRandomPlans(t, false, true, func(t *testing.T, _ *rand.Rand, c planCase) {
		owners := c.plan()
		_, counts := c.loads(owners)
		full := true
		for _, m := range c.members {
			if m.Max > 0 {
				require.LessOrEqual(t, counts[m.ID], m.Max)
			}
			full = full && (m.Cordoned || m.Max > 0 && counts[m.ID] == m.Max)
			for i, p := range c.partitions {
				if m.Cordoned && owners[i] == m.ID && p.Owner != m.ID {
					require.Fail(t, "a cordoned member got a new one")
				}
			}
		}
		if slices.Contains(owners, "") {
			require.True(t, full, "idle although there is room")
		}
	})
}

func TestPlanMovesOnlyWhatAJoinOrALeaveMustMove(t *testing.T) {
	t.Parallel()
	c := planCase{}
	for i := range 1000 {
		c.partitions = append(c.partitions, pool.PlanPartition{Name: fmt.Sprintf("%04d", i), Weight: 1})
	}
	adopt := func() (moved int) {
		for i, owner := range c.plan() {
			if c.partitions[i].Owner != owner {
				moved++
			}
			c.partitions[i].Owner = owner
		}
		return moved
	}
	for i := range 10 {
		c.members = append(c.members, pool.PlanMember{ID: fmt.Sprint(i)})
		if i == 0 {
			adopt()
			continue
		}
		require.Equal(t, 1000/(i+1), adopt(), "the share of number %d", i)
	}
	c.members = c.members[1:]
	require.Equal(t, 100, adopt(), "what the one that left had")
}

// Exact plans in which the heaviest that fits goes, so that little moves.
func TestPlanMovesTheHeaviestThatFits(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		weights []int
		owners  []string
		want    []string
	}{
		"one for many": {[]int{1, 1, 1, 1, 1, 5}, []string{"a", "a", "a", "a", "a", "a"},
			[]string{"a", "a", "a", "a", "a", "b"}},
		"half the gap":             {[]int{1, 2, 3}, []string{"a", "a", "a"}, []string{"a", "a", "b"}},
		"not more than half":       {[]int{2, 3, 4}, []string{"a", "a", "a"}, []string{"a", "a", "b"}},
		"the lightest of too many": {[]int{4, 5}, []string{"a", "a"}, []string{"b", "a"}},
		"heavy orphans first":      {[]int{4, 3, 6, 2}, []string{"a", "b", "", ""}, []string{"a", "b", "b", "a"}},
		"level enough":             {[]int{3, 3, 3}, []string{"a", "a", "b"}, []string{"a", "a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := planCase{members: []pool.PlanMember{{ID: "a"}, {ID: "b"}}}
			for i, weight := range test.weights {
				c.partitions = append(c.partitions, pool.PlanPartition{Name: fmt.Sprint(i), Weight: weight, Owner: test.owners[i]})
			}
			require.Equal(t, test.want, c.plan())
		})
	}
}

// A session that a listing shows twice is one member.
func TestPlanCountsAMemberOnce(t *testing.T) {
	t.Parallel()
	c := planCase{members: []pool.PlanMember{{ID: "b"}, {ID: "a"}, {ID: "b"}, {ID: "b"}}}
	for i := range 10 {
		c.partitions = append(c.partitions, pool.PlanPartition{Name: fmt.Sprint(i), Weight: 1})
	}
	_, counts := c.loads(c.plan())
	require.Equal(t, map[string]int{"a": 5, "b": 5}, counts)
}

// Who has more than it may have gives up what is too much, and no more; what
// does not fit anywhere lies idle.
func TestPlanTrimsToTheBound(t *testing.T) {
	t.Parallel()
	c := planCase{members: []pool.PlanMember{{ID: "a", Max: 2}, {ID: "b", Max: 2}}}
	for i := range 5 {
		c.partitions = append(c.partitions, pool.PlanPartition{Name: fmt.Sprint(i), Weight: 1, Owner: "a"})
	}
	_, counts := c.loads(c.plan())
	require.Equal(t, map[string]int{"a": 2, "b": 2}, counts)
}

// The heaviest is too much, and finds its place among what nobody has: so that
// what stays need not move.
func TestPlanPlacesWhatWasTooMuchByItsWeight(t *testing.T) {
	t.Parallel()
	c := planCase{members: []pool.PlanMember{{ID: "a", Max: 1}, {ID: "b"}, {ID: "c"}}}
	for weight, owner := range map[int]string{1: "a", 2: "a", 3: "b", 4: "c", 6: ""} {
		c.partitions = append(c.partitions, pool.PlanPartition{Name: fmt.Sprint(weight), Weight: weight, Owner: owner})
	}
	got := map[int]string{}
	for i, owner := range c.plan() {
		got[c.partitions[i].Weight] = owner
	}
	require.Equal(t, map[int]string{1: "a", 2: "c", 3: "b", 4: "c", 6: "b"}, got)
}

func BenchmarkPlan(b *testing.B) {
	for name, prepare := range map[string]func(c *planCase, r *rand.Rand){
		"steady": func(c *planCase, _ *rand.Rand) {
			owners := c.plan()
			for i := range owners {
				c.partitions[i].Owner = owners[i]
			}
		},
		"new": func(*planCase, *rand.Rand) {},
		"uneven": func(c *planCase, _ *rand.Rand) { // all at one member
			for i := range c.partitions {
				c.partitions[i].Owner = c.members[0].ID
			}
		},
		"weights": func(c *planCase, r *rand.Rand) {
			for i := range c.partitions {
				c.partitions[i].Weight, c.partitions[i].Owner = 1+r.IntN(100), c.members[r.IntN(10)].ID
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			r := rand.New(rand.NewPCG(1, 1))
			var c planCase
			for range 100 {
				c.members = append(c.members, pool.PlanMember{ID: fmt.Sprintf("%016x", r.Uint64())})
			}
			for i := range 10_000 {
				c.partitions = append(c.partitions, pool.PlanPartition{Name: fmt.Sprintf("shard-%05d", i), Weight: 1})
			}
			prepare(&c, r)
			for b.Loop() {
				c.plan()
			}
		})
	}
}
