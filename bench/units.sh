#!/usr/bin/env bash
# Runs the unit benchmarks of the policy, the wire messages, the scoreboard and
# the signal path, and compares them with bench/baseline.txt using benchstat. A
# slower result is a warning, not a failure: the baseline is from another day
# and usually from another machine. With --keep it writes a new baseline. It
# takes about a minute.
set -eu
cd "$(dirname "$0")/.."

baseline=bench/baseline.txt
if [ "${1:-}" = --keep ]; then
	out=$baseline
else
	out=$(mktemp)
	trap 'rm -f "$out"' EXIT
fi
{
	go test -run '^$' -count 6 -benchtime 50ms -bench 'Respawn|Crash|Tick' ./internal/pool
	go test -run '^$' -count 6 -benchtime 50ms -bench . ./internal/wire
	go test -run '^$' -count 6 -benchtime 50ms -bench 'Set|Served|Heartbeat|Read|Arm/10$|Arm/300$' ./internal/scoreboard
	go test -run '^$' -count 6 -benchtime 50ms -bench 'Signal$' ./tests/manager
} | grep -v -e '^PASS' -e '^ok' >"$out"
[ "$out" != $baseline ] || exit 0

result=$(go tool benchstat -alpha 0.01 "baseline=$baseline" "now=$out")
echo "$result"
# Significant changes of 20 % or more.
slower=$(echo "$result" | grep -E '\+([2-9][0-9]|[0-9]{3,})\.[0-9]+%' | grep -v '^geomean' || true)
if [ -n "$slower" ]; then
	echo "WARNING: slower than $baseline, or more memory, by 20 % or more:"
	echo "$slower"
fi
