//go:build unix

package tests_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// how a command that a page tells to run is known to work: one of these.
type how struct {
	run  scenario // this test runs it
	step string   // "FILE: LINE": CI runs it, perhaps for longer or shorter than the page says
	test string   // "FOLDER: TEST": that test does what it does
	aws  bool     // it needs AWS: its words are checked, and it is not run
}

const (
	push    = ".ci/run: "
	nightly = ".github/workflows/nightly.yml: "
)

// commands are all that the pages tell to run, but for `go test` of what `make
// test` runs. See requireSelects.
var commands = map[string]how{
	"go run ./examples/competing-consumers":                                                               {run: sharesOut},
	"go run ./examples/competing-consumers -crash":                                                        {run: sharesOut},
	"go run ./examples/competing-consumers -crash -ttl 3s":                                                {run: sharesOut},
	"go run ./examples/competing-consumers -store sqlite:/tmp/demo.db -work 200ms":                        {run: sharesOut},
	"go run ./examples/competing-consumers -store dynamodb:locks -create-table":                           {run: sharesOut},
	"go run ./examples/leader-election":                                                                   {run: leadersAreKilled},
	"go run ./examples/leader-election -crash -ttl 3s":                                                    {run: ends},
	"go run ./examples/leader-election -store sqlite:/tmp/demo.db -candidates 1":                          {run: leadersResign},
	"go run ./examples/leader-election -store dynamodb:demo -create-table":                                {run: leadersAreKilled},
	"go run ./examples/http-service -store sqlite:/tmp/demo.db":                                           {run: servesInTwoTerminals},
	"go run ./examples/http-service -store dynamodb:demo -create-table":                                   {run: servesInTwoTerminals},
	"go run ./examples/cron -store sqlite:/tmp/demo.db -job report -period 1h -- echo sending the report": {run: runsOncePerPeriod},
	"go run ./examples/lambda":                                                                            {run: ends},
	"go run ./examples/dynamodb-local":                                                                    {test: "tests: TestTheLockOnDynamoDBOfTheReadme"},
	"export AWS_ENDPOINT_URL_DYNAMODB=...":                                                                {test: "tests: TestTheLockOnDynamoDBOfTheReadme"},
	"go run ./examples/dynamodb":                                                                          {test: "tests: TestTheLockOnDynamoDBOfTheReadme"},
	"go run ./examples/quickstart":                                                                        {test: "examples/quickstart: TestItRunsAtOnce"},
	"go run ./examples/recipes/lock":                                                                      {test: "examples/recipes: TestTheSecondProcessWaitsForTheLock"},
	"go run ./examples/recipes/once":                                                                      {test: "examples/recipes: TestTheReportOfANightIsWrittenOnce"},
	"go run ./examples/recipes/leader":                                                                    {test: "examples/recipes: TestAnotherProcessLeadsWhenTheLeaderStops"},
	"go run ./examples/recipes/jobs":                                                                      {test: "examples/recipes: TestEachJobIsDoneOnce"},
	"go run ./examples/recipes/settings":                                                                  {test: "examples/recipes: TestNoChangeOfTheSettingsIsLost"},
	"go run ./examples/patterns/crawler":                                                                  {test: "examples/patterns: TestTwoCrawlersFetchEachPageOnceAndNoMoreThanTwoASecond"},
	"go run ./examples/patterns/webhook":                                                                  {test: "examples/patterns: TestEachDeliveryOfAnEventGetsTheSameAnswer"},
	"go run ./examples/patterns/cache":                                                                    {test: "examples/patterns: TestNobodyReadsACacheThatIsBeingRebuilt"},
	"go run ./examples/patterns/registry":                                                                 {test: "examples/patterns: TestTheRegistryShowsWhoLives"},
	"go run ./examples/patterns/migration":                                                                {test: "examples/patterns: TestTheStepsOfAMigrationAreTakenOnce"},

	"go run ./cmd/dynalock --store dynamodb:locks ls":                  {test: "tests: TestTheRunbookFindsAndBreaksALock"},
	"go run ./cmd/dynalock --store dynamodb:locks sessions":            {test: "tests: TestTheRunbookFindsAndBreaksALock"},
	"go run ./cmd/dynalock --store dynamodb:locks show election/demo":  {test: "tests: TestTheRunbookFindsAndBreaksALock"},
	"go run ./cmd/dynalock --store dynamodb:locks break election/demo": {test: "tests: TestTheRunbookFindsAndBreaksALock"},
	"go run ./cmd/dynalock run demo -- sleep 5":                        {test: "cmd/dynalock: TestScripts"},
	"go run ./cmd/dynalock ls":                                         {test: "cmd/dynalock: TestScripts"},
	"go run ./cmd/dynalock man man1":                                   {test: "cmd/dynalock: TestScripts"},

	"go mod init example.com/mine":                                  {test: "tests: TestAModuleOfOnesOwn"},
	"go mod edit -replace github.com/dynalock/dynalock=../dynalock": {test: "tests: TestAModuleOfOnesOwn"},
	"go mod tidy": {test: "tests: TestAModuleOfOnesOwn"},
	"go run .":    {test: "tests: TestAModuleOfOnesOwn"},

	"make":                           {run: ends},
	"git log":                        {run: ends},
	"go doc -all ./kv":               {run: documents},
	"make test":                      {step: push + "env SIM_FIRST=1 SIM_SEEDS=100 make test"},
	"make check":                     {step: nightly + "make check"},
	"make proof":                     {step: nightly + "make proof"},
	"make lint":                      {step: push + "make lint"},
	"make bench":                     {test: "bench: TestAQuickRunWritesThePageAndItsPlots"},
	"go run . -only storm":           {test: "bench: TestAQuickRunWritesThePageAndItsPlots"},
	"go run . -only connections":     {test: "bench: TestAQuickRunWritesThePageAndItsPlots"},
	".ci/run":                        {step: ".github/workflows/ci.yml: .ci/run"},
	"make sim SEEDS=2000":            {step: nightly + "make sim SEEDS=20000"},
	"make sim SEEDS=2000 FIRST=1":    {step: push + "make sim SEEDS=2000 FIRST=1"},
	"make sim SEEDS=2000 WITH=share": {step: nightly + "make sim SEEDS=2000 WITH=share"},
	"make chaos":                     {step: nightly + "make chaos MINUTES=10"},
	"make chaos MINUTES=5":           {step: nightly + "make chaos MINUTES=10"},
	"make model":                     {step: push + "make model"},
	"make mutants":                   {step: nightly + "make mutants"},

	"go run ./tests/mutants -run '^(Close|Release)'": {step: push + "go run ./tests/mutants -run '^(Close|Release)'"},
	"go run ./tests/mutants -through sim":            {run: lists},
	"go test -run xxx -fuzz FuzzRow -fuzztime 30s ./kv/dynamokv": {
		step: nightly + "go test -run xxx -fuzz FuzzRow -fuzztime 5m ./kv/dynamokv"},
	"go test -bench Plan ./lease":            {test: "bench: TestAQuickRunWritesThePageAndItsPlots"},
	"go test -run Cost ./tests -update-cost": {step: push + "go test -run Cost ./tests -update-cost"},
	"cfn-lint infra/table.yaml":              {step: push + "cfn-lint infra/table.yaml"},

	"aws cloudformation deploy --template-file infra/table.yaml --stack-name dynalock --capabilities CAPABILITY_IAM": {aws: true},
}

func TestEveryCommandOfThePagesIsRunSomewhere(t *testing.T) {
	t.Parallel()
	told := map[string]string{} // the page that tells to run it
	for name, text := range pages(t) {
		for _, command := range commandsOf(t, name, text) {
			told[command] = name
		}
	}
	counts := map[string]int{}
	for command, page := range told {
		h, known := commands[command]
		switch {
		case !known && strings.HasPrefix(command, "go test "):
			requireSelects(t, command)
			counts["by make test"]++
		case !known:
			require.Fail(t, "a command that nothing runs", "%s: %s", page, command)
		case h.run != nil:
			counts["here"]++
		case h.step != "":
			requireStep(t, h.step)
			counts["by CI"]++
		case h.test != "":
			folder, name, _ := strings.Cut(h.test, ": ")
			require.Contains(t, testsIn(t, folder), name, "%s: %s", page, command)
			counts["by another test"]++
		default:
			requireDeploys(t, command)
			counts["not, it needs AWS"]++
		}
	}
	for command := range commands {
		require.Contains(t, told, command, "no page tells to run it any more")
	}
	t.Logf("%d commands, run: %v", len(told), counts)
}

var (
	programs = `(?:go (?:build|doc|get|install|mod|run|test|tool|vet|work)|make|\.ci/run|aws|cfn-lint|curl|git|export|cd|npm|docker|kill -\w+ \d)`
	command  = regexp.MustCompile(`^` + programs + `(?: |$)`)
	inline   = regexp.MustCompile("`(" + programs + " [^`]+|\\.ci/run)`")
	fence    = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	indented = regexp.MustCompile(`(?m)^\n((?:    .*\n)+)`)
	comment  = regexp.MustCompile(`\s+#.*$`)
)

// commandsOf returns what a page tells to run. An indented block is of commands unless it is a drawing, which has characters that are not of ASCII.
func commandsOf(t *testing.T, page, text string) (found []string) {
	t.Helper()
	add := func(block string) {
		for line := range strings.Lines(block) {
			if line = comment.ReplaceAllString(strings.TrimSpace(line), ""); line != "" {
				require.Regexp(t, command, line, "%s: what is this?", page)
				require.NotContains(t, line, "  ", "%s: a remark that a shell would take for arguments", page)
				found = append(found, line)
			}
		}
	}
	for _, f := range fence.FindAllStringSubmatch(text, -1) {
		switch f[1] {
		case "go", "text", "yaml", "sql": // SQL is run by TestPostgresLeastPrivilege
		default:
			add(f[2])
		}
	}
	text = fence.ReplaceAllString(text, "")
	for _, block := range indented.FindAllStringSubmatch(text, -1) {
		if !strings.ContainsFunc(block[1], func(r rune) bool { return r > 127 }) {
			add(block[1])
		}
	}
	prose := strings.ReplaceAll(indented.ReplaceAllString(text, "\n"), "\n", " ")
	for _, c := range inline.FindAllStringSubmatch(prose, -1) {
		found = append(found, c[1])
	}
	return found
}

// requireStep looks for a line among those that a file of CI runs.
func requireStep(t *testing.T, step string) {
	t.Helper()
	file, line, _ := strings.Cut(step, ": ")
	text, err := os.ReadFile(filepath.Join(repository, file))
	require.NoError(t, err)
	runs := regexp.MustCompile(`(?m)^\s*(?:step |- run: |- )` + regexp.QuoteMeta(line) + `$`)
	require.True(t, runs.Match(text), "%s does not run: %s", file, line)
}

// testsIn returns the names of the tests of a folder, and of those under it if it ends in "/...".
func testsIn(t *testing.T, folder string) (names []string) {
	t.Helper()
	root, all := strings.CutSuffix(folder, "/...")
	root = filepath.Join(repository, root)
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	require.NoError(t, filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && !all:
			return filepath.SkipDir
		case strings.HasSuffix(path, "_test.go"):
			text, err := os.ReadFile(path)
			for _, m := range declared.FindAllSubmatch(text, -1) {
				names = append(names, string(m[1]))
			}
			return err
		}
		return nil
	}))
	return names
}

// requireSelects checks that `go test` lines, which run no more than `make test` does, select something.
func requireSelects(t *testing.T, line string) {
	t.Helper()
	for command := range strings.SplitSeq(line, " && ") {
		words := strings.Fields(strings.ReplaceAll(command, "'", ""))
		require.Equal(t, []string{"go", "test"}, words[:2], line)
		pattern := regexp.MustCompile("")
		for i := 2; i < len(words); i++ {
			switch word := words[i]; word {
			case "-v":
			case "-run":
				i++
				pattern = regexp.MustCompile(words[i])
			default:
				require.True(t, strings.HasPrefix(word, "./"), "%s: %s is for the list of commands", line, word)
				require.True(t, slices.ContainsFunc(testsIn(t, word[2:]), pattern.MatchString), "%s: nothing to run in %s", line,
					word)
			}
		}
	}
}

// requireDeploys checks what can be checked of the deployment without AWS.
func requireDeploys(t *testing.T, command string) {
	t.Helper()
	words := strings.Fields(command)
	require.Equal(t, []string{"aws", "cloudformation", "deploy", "--template-file"}, words[:4],
		"another command for AWS: check it here")
	require.Equal(t, "infra/table.yaml", words[4])
	template := readTemplate(t)
	flags := words[5:]
	for len(flags) > 1 && flags[0] != "--parameter-overrides" {
		require.Contains(t, []string{"--stack-name", "--capabilities"}, flags[0])
		flags = flags[2:]
	}
	for _, parameter := range flags[min(1, len(flags)):] {
		name, _, found := strings.Cut(parameter, "=")
		require.True(t, found, parameter)
		require.Contains(t, template["Parameters"], name)
	}
	require.Contains(t, command, "--capabilities CAPABILITY_IAM", "the template makes policies")
	for name := range template["Resources"].(object) {
		require.NotContains(t, properties(template, name), "ManagedPolicyName", "a name needs CAPABILITY_NAMED_IAM")
	}
}
