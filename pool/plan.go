package pool

import (
	"cmp"
	"slices"
)

// planMember is a member of a pool, as the planner sees it.
type planMember struct {
	id string
	// max is how many partitions it may have, 0: any number. A cordoned one gets
	// none in addition to those it has.
	max      int
	cordoned bool
}

// planPartition is a partition that somebody should have, as the planner sees it.
type planPartition struct {
	name   string
	weight int // at least 1
	// owner is the id of who has it. Whoever is not among the members does not
	// count.
	owner string
}

// plan says for each partition who should have it, "" if there is no room for it.
// It is a pure function of its arguments, whatever their order, so that members
// with the same view agree without a word.
//
//   - Balanced: no move would bring the loads of two members that may take or
//     give closer together. With equal weights they differ by one at most, and
//     else by no more than the weight of the lightest partition of the one with
//     more.
//   - Sticky: partitions stay where they are unless a move does that. With equal
//     weights there are as few moves as can be.
//   - A fixed point: a plan that is carried out is planned again.
func plan(members []planMember, partitions []planPartition) []string {
	p := newPlanner(members, partitions)
	p.keep()
	p.trim()
	p.place()
	p.level()
	return p.result()
}

// planner is a plan in the making. Members and partitions are known by their
// places in the sorted slices.
type planner struct {
	members    []planMember
	partitions []planPartition
	// places are those of the partitions in the caller's order.
	places []int
	// load and held are, by member, the sum of the weights and the partitions, by
	// weight and then by name.
	load    []int
	held    [][]int
	orphans []int
}

func newPlanner(members []planMember, partitions []planPartition) *planner {
	p := &planner{
		members: slices.Clone(members), places: make([]int, len(partitions)),
		partitions: make([]planPartition, len(partitions)),
	}
	slices.SortFunc(p.members, func(a, b planMember) int { return cmp.Compare(a.id, b.id) })
	p.members = slices.CompactFunc(p.members, func(a, b planMember) bool { return a.id == b.id })
	for i := range p.places {
		p.places[i] = i
	}
	slices.SortFunc(p.places, func(a, b int) int {
		return cmp.Or(
			cmp.Compare(partitions[a].weight, partitions[b].weight), cmp.Compare(partitions[a].name, partitions[b].name))
	})
	for place, i := range p.places {
		p.partitions[place] = partitions[i]
	}
	p.load, p.held = make([]int, len(p.members)), make([][]int, len(p.members))
	return p
}

// keep leaves each partition to its owner, if that is a member.
func (p *planner) keep() {
	index := make(map[string]int, len(p.members))
	for i, m := range p.members {
		index[m.id] = i
	}
	for place, partition := range p.partitions {
		if m, ok := index[partition.owner]; ok {
			p.held[m] = append(p.held[m], place)
			p.load[m] += partition.weight
		} else {
			p.orphans = append(p.orphans, place)
		}
	}
}

// trim takes from members what is more than they may have.
func (p *planner) trim() {
	for m := range p.members {
		if p.members[m].max == 0 {
			p.members[m].max = len(p.partitions)
		}
		for len(p.held[m]) > p.members[m].max {
			p.orphans = append(p.orphans, p.take(m, len(p.held[m])-1))
		}
	}
	slices.Sort(p.orphans)
}

// place gives the partitions that nobody has, the heaviest first, to whoever has
// least.
func (p *planner) place() {
	for len(p.orphans) > 0 {
		last := len(p.orphans) - 1
		m := p.least()
		if m < 0 {
			return
		}
		p.give(m, p.orphans[last])
		p.orphans = p.orphans[:last]
	}
}

// level moves partitions from those who have most to those who have least, as
// long as that brings the two closer together. A giver that cannot be helped is
// left out from then on, since the least load never falls.
func (p *planner) level() {
	stuck := make([]bool, len(p.members))
	for {
		to, from := p.least(), p.greatest(stuck)
		if to < 0 || from < 0 {
			return
		}
		i := p.choose(from, p.load[from]-p.load[to])
		if i < 0 {
			stuck[from] = true
			continue
		}
		p.give(to, p.take(from, i))
	}
}

// choose returns which of a giver's partitions brings it closest to a receiver
// whose load is less by gap. That is the heaviest of at most half the gap, else
// the lightest. It returns -1 if none does.
func (p *planner) choose(from, gap int) int {
	held := p.held[from]
	i, _ := slices.BinarySearchFunc(held, gap/2, func(place, half int) int {
		if p.partitions[place].weight <= half {
			return -1
		}
		return 1
	})
	switch {
	case i > 0:
		return i - 1
	case len(held) > 0 && p.partitions[held[0]].weight < gap:
		return 0
	}
	return -1
}

// least returns the member with the smallest load that may have more, -1 if there
// is none.
func (p *planner) least() int {
	best := -1
	for m := range p.members {
		mayTake := !p.members[m].cordoned && len(p.held[m]) < p.members[m].max
		if mayTake && (best < 0 || p.load[m] < p.load[best]) {
			best = m
		}
	}
	return best
}

// greatest returns the member with the greatest load that is not left out, -1 if
// there is none.
func (p *planner) greatest(without []bool) int {
	best := -1
	for m := range p.members {
		if !without[m] && (best < 0 || p.load[m] > p.load[best]) {
			best = m
		}
	}
	return best
}

func (p *planner) give(m, place int) {
	i, _ := slices.BinarySearch(p.held[m], place)
	p.held[m] = slices.Insert(p.held[m], i, place)
	p.load[m] += p.partitions[place].weight
}

func (p *planner) take(m, i int) int {
	place := p.held[m][i]
	p.held[m] = slices.Delete(p.held[m], i, i+1)
	p.load[m] -= p.partitions[place].weight
	return place
}

// result is the plan, in the caller's order.
func (p *planner) result() []string {
	owners := make([]string, len(p.partitions))
	for m, held := range p.held {
		for _, place := range held {
			owners[p.places[place]] = p.members[m].id
		}
	}
	return owners
}
