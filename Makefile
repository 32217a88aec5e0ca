# Targets for developers. Run those that start tests inside a pids cgroup: see
# CONTRIBUTING.md.

.PHONY: help quick test lint fuzz cover repeat bench docs ci

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 10

quick: ## vet, the policy, and the Manager on pretended processes; less than 30 s
	scripts/quick

test: ## all tests of all modules; about two minutes
	go test work

lint: ## gofmt, vet for several systems, staticcheck, go mod tidy, govulncheck, prose
	scripts/lint
	go run ./internal/prose/count -check .

fuzz: ## each fuzz target; TIME=1m for a minute each, NAME=FuzzPool for one of them
	scripts/fuzz "$(TIME)" $(NAME)

cover: ## coverage by package, counted in all processes
	scripts/cover

repeat: ## the process tests 100 times, 4 runs at a time
	scripts/repeat

bench: ## the library beside its peers (bench/setup.sh installs them); ARGS="--update-docs docs"
	go run ./bench $(ARGS)

docs: ## check the programs, names and links in the documents
	go test -run Documents ./internal

ci: ## everything that CI runs, in a pids cgroup; installs the programs that tests need
	.ci/run
