package pool

import "slices"

// PlanMember and PlanPartition are the planner's arguments, for tests.
type (
	PlanMember struct {
		ID       string
		Max      int
		Cordoned bool
	}
	PlanPartition struct {
		Name   string
		Weight int
		Owner  string
	}
)

// Plan calls the planner, which must not change its arguments.
func Plan(members []PlanMember, partitions []PlanPartition) []string {
	m := make([]planMember, len(members))
	for i, member := range members {
		m[i] = planMember{id: member.ID, max: member.Max, cordoned: member.Cordoned}
	}
	p := make([]planPartition, len(partitions))
	for i, partition := range partitions {
		p[i] = planPartition{name: partition.Name, weight: partition.Weight, owner: partition.Owner}
	}
	membersBefore, partitionsBefore := slices.Clone(m), slices.Clone(p)
	owners := plan(m, p)
	if !slices.Equal(m, membersBefore) || !slices.Equal(p, partitionsBefore) {
		panic("the planner has changed its arguments")
	}
	return owners
}
