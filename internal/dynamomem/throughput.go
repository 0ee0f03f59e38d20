package dynamomem

import (
	"errors"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/dynalock/dynalock/internal/clock"
)

// Throughput is what each partition key of a table, and of a global index, takes
// in a second. It is the worst case: DynamoDB may split a partition that is hot
// for long, and has no local index, over several machines.
type Throughput struct {
	// Writes and Reads are units a second: one of Writes for each KB of a row that
	// is written, or whose condition failed, two in a transaction; one of Reads for
	// each 4 KB that are read, half of one if eventually consistent.
	Writes, Reads float64
	// Burst is for how long a partition saves units that nobody used. It begins
	// with as many. DynamoDB saves for five minutes, where its machine has units to
	// spare, and promises none of it.
	Burst time.Duration
	// Provisioned tables refuse with a ProvisionedThroughputExceededException,
	// those on demand with a ThrottlingException.
	Provisioned bool
}

// OnDemand is a partition of a table on demand, as DynamoDB documents it, with a
// second's burst.
var OnDemand = Throughput{Writes: 1000, Reads: 3000, Burst: time.Second}

// Load is what a partition was asked for.
type Load struct {
	// Writes and Reads are units that were used.
	Writes, Reads float64
	// Throttled are the requests that were refused.
	Throttled int
}

// Limit makes all tables throttle from now on, by the time of clk.
func (s *Server) Limit(t Throughput, clk clock.Clock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.throughput, s.clock, s.meters = t, clk, map[meterKey]*meter{}
}

// Load returns the load of a partition key of a table since Limit.
func (s *Server) Load(tableName, partition string) Load {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.meters[meterKey{table: s.tables[tableName], partition: partition}]; m != nil {
		return m.load
	}
	return Load{}
}

// meterKey names what is limited: a partition key of a table or, with its name,
// of a global index.
type meterKey struct {
	table            *table
	index, partition string
}

// meter has what is left of a partition's units.
type meter struct {
	writes, reads float64
	at            clock.Reading
	load          Load
}

// admit refuses a request to a partition that has no units of its kind left. A
// request that is let in may use more than there are: the next ones wait for it.
// It returns nil, nil without limits.
func (s *Server) admit(t *table, index, partition string, write bool) (*meter, error) {
	if s.clock == nil {
		return nil, nil
	}
	key, now := meterKey{t, index, partition}, s.clock.Now()
	limit, burst := s.throughput, s.throughput.Burst.Seconds()
	m := s.meters[key]
	if m == nil {
		m = &meter{writes: limit.Writes * burst, reads: limit.Reads * burst, at: now}
		s.meters[key] = m
	}
	passed := now.MonotonicSince(m.at).Seconds()
	m.at = now
	m.writes = min(limit.Writes*burst, m.writes+limit.Writes*passed)
	m.reads = min(limit.Reads*burst, m.reads+limit.Reads*passed)
	if write && m.writes > 0 || !write && m.reads > 0 {
		return m, nil
	}
	m.load.Throttled++
	return nil, s.throttled(t, index, write)
}

// read uses the units of a read of so many bytes.
func (m *meter) read(size int, consistent bool) {
	if m == nil {
		return
	}
	units := max(1, math.Ceil(float64(size)/4096))
	if !consistent {
		units /= 2
	}
	m.reads -= units
	m.load.Reads += units
}

// write uses the units of a write, times as many in a transaction, that found old
// and leaves row.
func (m *meter) write(old, row item, times float64) {
	if m == nil {
		return
	}
	units := times * max(1, math.Ceil(float64(max(sizeOf(old), sizeOf(row)))/1024))
	m.writes -= units
	m.load.Writes += units
}

// throttled is DynamoDB's answer.
func (s *Server) throttled(t *table, index string, write bool) error {
	kind, resource := "Table", "arn:aws:dynamodb:local:000000000000:table/"+s.nameOf(t)
	if index != "" {
		kind, resource = "Index", resource+"/index/"+index
	}
	operation := "Read"
	if write {
		operation = "Write"
	}
	reasons := []types.ThrottlingReason{{
		Reason: aws.String(kind + operation + "KeyRangeThroughputExceeded"), Resource: aws.String(resource),
	}}
	if s.throughput.Provisioned {
		return &types.ProvisionedThroughputExceededException{
			Message: aws.String("The level of configured provisioned throughput for the table was exceeded. " +
				"Consider increasing your provisioning level with the UpdateTable API."),
			ThrottlingReasons: reasons,
		}
	}
	return &types.ThrottlingException{
		Message: aws.String("Throughput exceeds the current capacity of your table or index. " +
			"DynamoDB is automatically scaling your table or index so please try again shortly."),
		ThrottlingReasons: reasons,
	}
}

func (s *Server) nameOf(t *table) string {
	for name, other := range s.tables {
		if other == t {
			return name
		}
	}
	return ""
}

// IsThrottled reports whether err is an answer of a Throughput.
func IsThrottled(err error) bool {
	var onDemand *types.ThrottlingException
	var provisioned *types.ProvisionedThroughputExceededException
	return errors.As(err, &onDemand) || errors.As(err, &provisioned)
}
