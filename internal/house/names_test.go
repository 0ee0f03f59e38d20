package house_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// instead says what to say in the place of words that were used here once, each
// for several things, or that are no term of the field.
var instead = map[string]string{
	"gate": "keyState", "gates": "states", "gateOf": "stateOf", "enterGate": "acquireKey", "leaveGate": "leaveState",
	"sighting": "observation", "sightings": "observations", "saw": "observe", "seen": "known, observed",
	"noticed": "note", "due": "recheckIn", "busy": "heldRow", "look": "recheck, read",
	"patience": "deadAfter, contentionBackoff, revokeTimeout", "settle": "resolve", "settled": "finished, released",
	"settling": "warmingUp", "settlement": "release", "SettledError": "FinishedError",
	"rest": "yield, waitBeat, sleep, tail", "resting": "yielding", "pausing": "sleeping",
	"cover": "track", "covered": "tracked", "uncover": "untrack", "covers": "owns", "ours": "owns",
	"heir": "nextWaiter", "handed": "handoff", "pass": "release", "deliver": "send",
	"corpse": "expired", "buried": "markDead", "outlive": "waitOutTTL", "gone": "deleted",
	"nudge": "heartbeatNow", "beat": "heartbeatLoop, nonce", "told": "emitted", "tell": "emit, log",
	"farewell": "cleanupTimeout", "workless": "idleRounds", "searching": "idlePause", "unrests": "hasResidency",
	"tries": "attempts", "seldom": "a number of its own", "most": "max, limit",
	"surrender": "release", "giveBack": "release", "giveUp": "cancel", "quit": "drain", "hurry": "force",
	"overdue": "timedOut", "donor": "currentOwner",
	"ver": "versionOf", "yes": "boolAttr", "str": "stringAttr", "num": "numberAttr",
	"blocker": "conflictingRow", "errRaced": "errOutcomeUnknown", "Weigh": "SetWeight",
}

func TestIdentifiersAreTheFieldsWordsWithOneMeaning(t *testing.T) {
	t.Parallel()
	folders := []string{"kv/*.go", "lease/*.go", "pool/*.go", "lock/*.go", "election/*.go", "metrics/*.go", "web/*.go",
		"internal/*.go"}
	for _, file := range tracked(t, folders...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, id := range declared(t, file, []byte(read(t, file))) {
			require.Empty(t, instead[id], "%s declares %q: say what stands here", file, id)
		}
	}
}

func TestDeclaredIdentifiersAreFound(t *testing.T) {
	t.Parallel()
	ids := declared(t, "x.go", []byte(`package x
const c = 1
var v, w int
type T struct{ f int }
func (r T) m(p int) (q int) {
	a, b := 1, 2
	for k, e := range []int{a, b} { _, _ = k, e }
	var l int
	return l
}`))
	require.Subset(t, ids, strings.Fields("c v w T f r m p q a b k e l"))
}

// declared returns the identifiers that a file declares.
func declared(t *testing.T, name string, text []byte) (ids []string) {
	file, err := parser.ParseFile(token.NewFileSet(), name, text, 0)
	require.NoError(t, err)
	add := func(names ...ast.Expr) {
		for _, n := range names {
			if id, ok := n.(*ast.Ident); ok {
				ids = append(ids, id.Name)
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			add(n.Name)
		case *ast.TypeSpec:
			add(n.Name)
		case *ast.ValueSpec:
			for _, id := range n.Names {
				add(id)
			}
		case *ast.Field:
			for _, id := range n.Names {
				add(id)
			}
		case *ast.AssignStmt:
			if n.Tok == token.DEFINE {
				add(n.Lhs...)
			}
		case *ast.RangeStmt:
			if n.Tok == token.DEFINE {
				add(n.Key, n.Value)
			}
		}
		return true
	})
	return ids
}
