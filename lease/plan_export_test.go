package lease

// PlanMember and PlanPartition are the planner's arguments, for tests.
type (
	PlanMember struct {
		ID       string
		Most     int
		Cordoned bool
	}
	PlanPartition struct {
		Name   string
		Weight int
		Owner  string
	}
)

// Plan calls the planner.
func Plan(members []PlanMember, partitions []PlanPartition) []string {
	m := make([]planMember, len(members))
	for i, member := range members {
		m[i] = planMember{id: member.ID, most: member.Most, cordoned: member.Cordoned}
	}
	p := make([]planPartition, len(partitions))
	for i, partition := range partitions {
		p[i] = planPartition{name: partition.Name, weight: partition.Weight, owner: partition.Owner}
	}
	return plan(m, p)
}
