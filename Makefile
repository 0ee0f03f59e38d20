# The commands of this repository. CI runs the same ones (.ci/run).
MODULES := . otel web adapters/gocron adapters/cron adapters/certmagic adapters/dynastore adapters/idempotency cmd/dynalock examples tests bench
LINT_VERSION := v2.12.2
LINT := bin/golangci-lint-$(LINT_VERSION)

# The race detector needs cgo and a C compiler.
CC_FOUND := $(shell test "$$(go env CGO_ENABLED)" = 1 && command -v $$(go env CC | cut -d' ' -f1))
RACE := $(if $(CC_FOUND),-race)

# A busy machine must not end a run. Go's own limit is ten minutes a package.
TIMEOUT := -timeout 60m

# All modules' packages, for one run of go test: side by side they keep all cores at work. Those of tests
# and of the command come first. They take longest, and mostly wait, so one package more than there are cores runs at a time.
PACKAGES := ./tests/... ./cmd/dynalock/... ./... $(patsubst %,./%/...,$(filter-out . tests cmd/dynalock,$(MODULES)))
AT_A_TIME := -p $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

# each runs a command in every module, the rest too when one fails, and fails if any did.
each = @status=0; for module in $(MODULES); do echo "== module $$module: $(1)"; (cd $$module && $(1)) || status=1; done; exit $$status

.PHONY: help test test-modules test-short check proof race-notice lint fmt fmt-check tidy-check sim chaos model mutants run bench clean
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: race-notice ## test every module, with the race detector; DynamoDB Local needs Java 17 and npm, PostgreSQL its server, the page chromium
	@file=$$(mktemp) && trap 'rm -f "$$file"' EXIT && \
	{ DYNALOCK_TEST_NOT_RUN=$$file $(MAKE) --no-print-directory test-modules; status=$$?; \
	sort -u "$$file" | sed 's/^/NOT RUN: /'; exit $$status; }

# What is left out for want of a program is in the file that DYNALOCK_TEST_NOT_RUN names (internal/notrun).
test-modules:
	go test $(RACE) $(TIMEOUT) $(AT_A_TIME) $(PACKAGES)

test-short: race-notice ## the same without DynamoDB Local, PostgreSQL and the long runs
	go test -short $(RACE) $(TIMEOUT) $(AT_A_TIME) $(PACKAGES)

check: fmt-check lint test-short ## what to run before a commit: format, lint, short tests

proof: ## repeat what is left to chance: histories 50 times, process tests 20 times, a minute of turns and of each recipe
	cd tests && go test $(RACE) $(TIMEOUT) -count 50 -run 'TestHistories' .
	cd tests && DYNALOCK_TEST_LONG=1 go test $(RACE) -timeout 4h -count 20 -run 'TestPoolOfProcesses|TestRollingRestarts' .
	cd tests && DYNALOCK_TEST_RECIPES=60s go test $(RACE) $(TIMEOUT) -count 3 -run 'Semaphore|RWMutex|OnceValue|TestMulti' .
	cd tests && DYNALOCK_TEST_TURNS=60s go test $(TIMEOUT) -count 1 -v -run TestTwoClientsInALoop .
	cd tests && DYNALOCK_TEST_LONG=1 go test $(TIMEOUT) -count 1 -v -run 'SemaphoreOfP|RWMutexOfP|OnceValueOfP|MultiOf' .

race-notice:
	@$(if $(RACE),true,echo "WARNING: no cgo or no C compiler: tests run WITHOUT the race detector" >&2)

# Its cache is this checkout's own: one that checkouts share answers with paths of another.
lint: export GOLANGCI_LINT_CACHE := $(CURDIR)/bin/.lint-cache
lint: $(LINT) ## golangci-lint on every module, .golangci.yml
	$(call each,$(CURDIR)/$(LINT) run --allow-parallel-runners ./...)
$(LINT): # the version is in the name, so another version is another file
	GOBIN=$(CURDIR)/bin GOWORK=off go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)
	mv bin/golangci-lint $@

fmt: ## gofmt every file in place
	gofmt -w .

fmt-check: ## fail if gofmt would change a file
	@files=$$(gofmt -l .); test -z "$$files" || { echo "not gofmt'ed:"; echo "$$files"; exit 1; }

tidy-check: ## fail if go mod tidy would change a go.mod or go.sum
	$(call each,GOWORK=off go mod tidy -diff)

sim: ## simulate the lease layer under SEEDS=2000 new seeds, or those from FIRST= on, or with WITH=share in them; race detector: SIMFLAGS=-race
	cd tests && SIM_SEEDS=$(or $(SEEDS),2000) $(if $(FIRST),SIM_FIRST=$(FIRST)) $(if $(WITH),SIM_WITH=$(WITH)) go test $(SIMFLAGS) -count 1 -timeout 60m -run TestSimulation ./sim

chaos: ## kill, stop and cut off real processes for MINUTES=5 on each store, both at once
	cd tests && CHAOS_MINUTES=$(or $(MINUTES),5) go test -count 1 -timeout 0 -v -run TestChaos ./chaos

model: ## check the formal models and their broken variants, with spin and gcc
	tests/model/check

mutants: ## plant each bug of tests/mutants in the library: the tests must find it
	DYNALOCK_TEST_MUTANTS=1 go test -count 1 -run TestTheTestsFindMutants ./kv/dynamokv && go run ./tests/mutants

run: ## the example: three workers compete for the files under this folder
	go run ./examples/competing-consumers

bench: ## measure, for some minutes, and write docs/figures.md; NOTE= says what else the machine does
	cd bench && go run . $(if $(NOTE),-note "$(NOTE)")

clean: ## remove bin/, the tools
	rm -rf bin
