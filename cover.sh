#!/usr/bin/env bash
# How much of the library the tests reach, by package, counted in all processes: the tests start their own binary again as
# managers, workers, heirs and reapers, and each writes what it has reached when it exits (one that a signal ends does not).
# Run it as ci.sh, inside a pids cgroup. Arguments go to go test.
set -eu
cd "$(dirname "$0")"
export GORACE=atexit_sleep_ms=0

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
packages=$(go list . ./internal/... | grep -v '/internal$' | paste -sd, -)
go test -cover -coverpkg="$packages" "$@" . ./internal/... -args -test.gocoverdir="$dir"
go tool covdata textfmt -i="$dir" -o="$dir/profile"
go tool covdata percent -i="$dir"
go tool cover -func="$dir/profile" | tail -1
