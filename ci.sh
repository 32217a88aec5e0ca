#!/usr/bin/env bash
# The checks, the same on a developer's machine and in CI. Each step prints its time. Run it inside a pids cgroup
# (.ci/run makes one): the tests start programs that start themselves.
set -eu
cd "$(dirname "$0")"
export GORACE=atexit_sleep_ms=0 # race-built helper processes sleep a second at exit otherwise

began=$SECONDS
step() {
	local name=$1 from=$SECONDS
	shift
	echo "== $name"
	"$@"
	echo "-- $name: $((SECONDS - from)) s"
}

formatted() {
	local bad
	bad=$(gofmt -l .)
	[ -z "$bad" ] || { echo "not formatted by gofmt:"; echo "$bad"; return 1; }
}

vet() {
	go vet work
	local os
	for os in darwin freebsd openbsd netbsd windows; do
		echo "vet for $os"
		GOOS=$os go vet . ./internal/... ./preforkhttp ./preforktest ./ops/...
	done
	GOARCH=386 go vet . ./internal/...
}

tidy() {
	local dir
	for dir in . ops bench examples tools; do
		(cd "$dir" && GOWORK=off go mod tidy -diff)
	done
}

# About 10 s each on a 2-core machine. Bounded by count and not by time: where time runs out, go test -fuzz now and then
# reports its own deadline as a failure ("context deadline exceeded", without an input).
fuzz() {
	local target pkg name count
	for target in internal/pool:FuzzPool:150000x internal/inherit:FuzzParse:500000x internal/inherit:FuzzGiven:450000x internal/wire:FuzzDecode:1000000x internal/reuseport:FuzzKeepers:200000x internal/scoreboard:FuzzCell:100000x internal/resources:FuzzPlan:150000x internal/inherit:FuzzCheckProgram:200000x ops/journal:FuzzJournal:50000x internal/inherit:FuzzParseReaper:300000x internal/inherit:FuzzAncestor:50000x internal/reaper:FuzzMessage:300000x .:FuzzWorkerSays:5000x; do
		IFS=: read -r pkg name count <<<"$target"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$count" -fuzzminimizetime 10x "./$pkg"
	done
}

step "gofmt" formatted
step "vet" vet
step "staticcheck" go tool staticcheck -checks all,-ST1003 work
step "go mod tidy" tidy
# The command that README.md names; -v would hide a failure in noise.
step "tests of all modules" go test -race -shuffle=on work
step "tests as users get the module" env GOWORK=off go test -short ./...
step "tests without cgo" env CGO_ENABLED=0 go test -run 'Original|Surroundings|Death|Marker' .
step "process tests, repeated" go test -race -shuffle=on -count=5 -run 'Original0[1256]|Storm|Interrupt|Marker|Listen|Command|EndOfAWorker|TwoPools' .
step "processes, repeated" go test -race -shuffle=on -count=5 ./internal/proc
step "fuzzing" fuzz
step "unit benchmarks, beside the baseline" bench/units.sh
step "figures" go test -run '^$' -bench Respawn -benchtime 100x .
echo "all passed in $((SECONDS - began)) s"
