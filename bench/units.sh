#!/usr/bin/env bash
# Runs the unit benchmarks of the policy, the wire messages, the scoreboard and the signal path, and compares them with
# bench/baseline.txt by benchstat. What has become slower is a warning and never a failure: the baseline is of another day,
# and as a rule of another machine. With --keep it makes a new baseline. About a minute.
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
	go test -run '^$' -count 6 -benchtime 50ms -bench 'Set|Served|Beat|Read|Post/10$|Post/300$' ./internal/scoreboard
	go test -run '^$' -count 6 -benchtime 50ms -bench 'Signal$' .
} | grep -v -e '^PASS' -e '^ok' >"$out"
[ "$out" != $baseline ] || exit 0

result=$(go tool benchstat -alpha 0.01 "baseline=$baseline" "now=$out")
echo "$result"
# What benchstat holds for a change, and is a fifth or more.
slower=$(echo "$result" | grep -E '\+([2-9][0-9]|[0-9]{3,})\.[0-9]+%' | grep -v '^geomean' || true)
if [ -n "$slower" ]; then
	echo "WARNING: slower, or more memory, than $baseline by a fifth or more:"
	echo "$slower"
fi
