package dynamokv_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// mutants are bugs that the driver must not have: a change of its source, and
// the tests of which at least one must find it.
var mutants = []struct {
	name, file, old, new, found string
}{
	{
		"the condition of a swap dropped", "atomic.go",
		"s.putItem(put, e, e.liveAt(w.Previous.Version, op.wall()))",
		`s.putItem(put, e, "attribute_exists("+e.attr(s.idName)+")")`,
		"TestContractInMemory/Atomic|TestTheWireMatrix$/another_writer",
	},
	{
		"an urgent write waits its turn", "attempt.go",
		"if op.pace != nil && !op.urgent {", "if op.pace != nil {",
		"TestAnUrgentWriteWaitsForNobody",
	},
	{
		"an urgent write is tried as seldom as others", "attempt.go",
		"longest = urgentBackoff", "longest = maxBackoff",
		"TestAnUrgentWriteIsTriedOften",
	},
	{
		"a Store sends on while its partition throttles", "pace.go",
		"if !p.on.Load() {\n\t\treturn nil", "if p.taken || true {\n\t\treturn nil",
		"TestAStoreSendsAsMuchAsItsPartitionServes",
	},
	{
		"a release waits with the rest", "atomic.go",
		"op.first = true", "op.first = false",
		"TestAReleaseComesBeforeWhatIsOnlyBegun",
	},
	{
		"a Store stays slow when the load has fallen", "pace.go",
		"more = max(more, p.rate/10)", "more = max(more, 0)",
		"TestAStoreIsFastAgainSoonAfterTheLoadHasFallen",
	},
	{
		"versions start anew", "store.go",
		"micros := uint64(now.UnixMicro())", "micros := uint64(1)",
		"TestASweepTakesNoRowThatIsStillNeeded",
	},
	{
		"expiry ignored by readers", "row.go",
		"!r.deleted && r.pair.Live(now)", "!r.deleted",
		"TestAPairExpiresToTheMillisecond",
	},
	{
		"expiry ignored by creates", "expression.go",
		"(attribute_exists(%s) OR %s <= %s)", "(attribute_exists(%s) OR %s < %s AND attribute_not_exists(#n0))",
		"TestAPairExpiresToTheMillisecond",
	},
	{
		"a create that may land yet is forgotten", "atomic.go",
		"if op.unknown { // what is created", "if op == nil { // what is created",
		"TestACreateIsAboveAnEarlierOneOfUnknownOutcome",
	},
	{
		"our own write id taken for a conflict", "atomic.go",
		"return r != nil && r.writer == writer, r, nil", "return false, r, nil",
		"TestTheWireMatrix$/all_well/cut_after",
	},
	{
		"a create that is not bound to its version", "expression.go",
		"<= %s) AND %s < %s)", "<= %s) AND (%s < %s OR attribute_exists(#n0)))",
		"TestALateCreateLandsOnATombstone",
	},
	{
		"a second try after an unknown attempt", "atomic.go",
		"case op.unknown: // until", "case false: // until",
		"TestATombstoneOfAClockAheadAfterALostAnswer",
	},
	{
		":now of each attempt", "atomic.go",
		"send := s.putItem(put, e, e.liveAt(w.Previous.Version, op.wall()))",
		`send := func(ctx context.Context, o ...func(*dynamodb.Options)) error {
			e = newExpression()
			return s.putItem(put, e, e.liveAt(w.Previous.Version, s.clock.Now().Wall))(ctx, o...)
		}`,
		"TestAttemptsJudgeExpiryByOneTime",
	},
	{
		"an unknown attempt taken for one not applied", "classify.go",
		"	return unknown\n}\n\n// isExpired", "	return notApplied\n}\n\n// isExpired",
		"TestTheWireMatrix$/refused/500_after",
	},
	{
		"an attempt without an answer taken for one not applied", "classify.go",
		"	return unknown\n}\n\n// classifyUnsent", "	return notApplied\n}\n\n// classifyUnsent",
		"TestTheWireMatrix$/another_writer/cut_after",
	},
	{
		"the SDK's retries left on", "attempt.go",
		"o.Retryer = aws.NopRetryer{}", "_ = aws.NopRetryer{}",
		"TestWhatAnErrorOfDynamoDBMeansForAWrite|TestAttemptsOfAWriteAreTheSame",
	},
	{
		"the SDK mends the clock", "attempt.go",
		"o.DisableClockSkewCorrection = true", "o.DisableClockSkewCorrection = false",
		"TestAnAnswerOfAnotherTimeIsAnAnswer",
	},
	{
		"a dead row refuses a create", "atomic.go",
		"case r.live(op.wall()):\n\t\t\treturn nil, &kv.ConflictError{Key: op.key, Create: true, Current: r.pair,",
		"case r != nil && op.pauses != nil || r.live(op.wall()):\n\t\t\treturn nil, &kv.ConflictError{Key: op.key, Create: true, Current: r.current(op.wall()),",
		"TestACreateOverDeadRowsInARow",
	},
	{
		"a create tried anew at the version of the dead row", "atomic.go",
		"max(op.version, r.versionOf()+1)", "max(op.version, r.versionOf())",
		"TestACreateOverDeadRowsInARow",
	},
	{
		"tries of a create without pauses", "attempt.go",
		"op.store.clock, op.pauses.NextBackOff())", "op.store.clock, time.Millisecond)",
		"TestACreateThatMeetsOnlyDeadRowsIsNotApplied$/^3s",
	},
	{
		"a budget for each try of a create", "attempt.go",
		"defaultBudget-op.store.clock.Now().MonotonicSince(op.start)", "defaultBudget",
		"TestACreateThatMeetsOnlyDeadRowsIsNotApplied",
	},
	{
		"an old hint sweeps a pair without expiry", "write.go",
		"e.notDead(op.wall()), stays)", `e.notDead(op.wall()), stays+" OR attribute_exists("+e.attr(s.idName)+")")`,
		"TestPutWithKeepTTLLeavesNoOlderHint",
	},
	{
		"an endpoint taken for one that returns rows", "atomic.go",
		"s.returnsItems.Store(false)", "s.returnsItems.Load()",
		"TestACreateOnAnEndpointThatReturnsRowsNowAndThen",
	},
	{
		"another number of shards accepted", "layout.go",
		"if shards != uint64(s.shards) {", "if false {",
		"TestStoresOfOtherShardsNeverBothWrite$",
	},
	{
		"the layout written over another Store's", "layout.go",
		`fmt.Sprintf("attribute_not_exists(%s)", e.attr(s.idName))`, `"attribute_not_exists("+e.attr(attrPayload)+")"`,
		"TestTwoStoresAtTheirFirstUseAtOnceAgree",
	},
	{
		"a layout of unknown outcome taken for agreed on", "layout.go",
		"s.agreed.Store(err == nil)", "s.agreed.Store(true)",
		"TestALayoutWriteThatLandsLateDecidesNothing",
	},
	{
		"pairs without a layout overlooked", "layout.go",
		"if s.shards > 1 {", "if false {",
		"TestAShardedStoreRefusesPairsOfStoresWithoutALayout",
	},
	{
		"a reader fixes the number of shards", "layout.go",
		"\tif !write {\n", "\tif false {\n",
		"TestAReadOfANewPartitionFixesNothing",
	},
	{
		"a write trusts that there was no layout", "layout.go",
		"return !op.write && absent != nil", "return absent != nil",
		"TestAReadOfANewPartitionFixesNothing",
	},
	{
		"a reader that never looks again", "layout.go",
		"MonotonicSince(*absent) < absentFor", "MonotonicSince(*absent) >= 0",
		"TestAReaderOfANewPartitionLooksAgainAfterAMinute",
	},
	{
		"a page goes on behind what it left out", "merge.go",
		"m.last = lastPart.at(last)", "m.last = lastPart.listing",
		"TestListingsOfShardsAreThoseOfOneShard",
	},
	{
		"a merge that does not wait for an empty shard", "merge.go",
		"case len(p.rows) == 0 && !p.done:", "case len(p.rows) == 0 && !p.done && len(m.parts) == 0:",
		"TestListingsOfShardsAreThoseOfOneShard",
	},
	{
		"a merge that ascends always", "merge.go",
		"return order < 0 != descending", "return order < 0",
		"TestListingsOfShardsAreThoseOfOneShard",
	},
	{
		"keys spread by the lowest bits", "shards.go",
		"(sum ^ sum>>32)", "sum",
		"TestKeysAreSpreadAsTheyEverWere",
	},
}

// TestTheMutantsAreOfThisSource runs always, so that a change of the source shows
// which mutants it has left behind.
func TestTheMutantsAreOfThisSource(t *testing.T) {
	t.Parallel()
	for _, m := range mutants {
		source, err := os.ReadFile(m.file)
		require.NoError(t, err)
		require.Equal(t, 1, bytes.Count(source, []byte(m.old)),
			"%q is out of date: %s has not exactly one %q", m.name, m.file, m.old)
	}
}

// TestTheTestsFindMutants compiles each mutant in place of the driver, and runs
// the tests that must fail then.
func TestTheTestsFindMutants(t *testing.T) {
	t.Parallel()
	if os.Getenv("DYNALOCK_TEST_MUTANTS") == "" {
		t.Skip("compiles the driver once for each mutant: run by `make mutants` and by CI, with DYNALOCK_TEST_MUTANTS=1")
	}
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			source, err := os.ReadFile(m.file)
			require.NoError(t, err)
			output, err := runMutant(t, m.file, bytes.Replace(source, []byte(m.old), []byte(m.new), 1), m.found)
			var failed *exec.ExitError
			require.ErrorAs(t, err, &failed, "nothing was found:\n%s", output)
			require.Contains(t, string(output), "--- FAIL: Test", "it ended in another way")
			require.NotContains(t, string(output), "panic:")
		})
	}
}

// runMutant runs tests with other source in place of a file of this package.
func runMutant(t *testing.T, file string, source []byte, run string) ([]byte, error) {
	t.Helper()
	original, err := filepath.Abs(file)
	require.NoError(t, err)
	mutant, overlay := filepath.Join(t.TempDir(), file), filepath.Join(t.TempDir(), "overlay.json")
	require.NoError(t, os.WriteFile(mutant, source, 0o600))
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{original: mutant}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, text, 0o600))
	command := exec.CommandContext(t.Context(), "go", "test", "-short", "-vet=off", "-ldflags=-s -w", "-timeout=2m",
		"-overlay="+overlay, "-run="+run, ".")
	return command.CombinedOutput()
}
