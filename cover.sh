#!/usr/bin/env bash
# How much of the library the tests reach, by package, counted in all processes: the tests start their own binary again as
# managers, workers, successors and reapers, and each writes what it has reached when it exits. (One that a signal ends does not, so
# the true figure is higher.) Run it as ci.sh, inside a pids cgroup. Arguments go to the test binaries, such as -test.skip.
#
# What a test says is not looked at: counting makes programs slow, and some tests are about time.
set -eu
cd "$(dirname "$0")"
export GORACE=atexit_sleep_ms=0

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/data" "$dir/out"
chmod 755 "$dir"
chmod 777 "$dir/data" # some programs become other users
packages=$(go list . ./internal/... | grep -v '/internal$\|/internal/load$' | paste -sd, -)
for path in . internal/*/; do
	[ "$path" != internal/load/ ] || continue
	go test -c -cover -coverpkg="$packages" -o "$dir/test" "./$path"
	(cd "$path" && GOCOVERDIR="$dir/data" "$dir/test" -test.gocoverdir="$dir/data" -test.timeout 20m "$@" >"$dir/out/log" 2>&1) ||
		grep -- '^--- FAIL' "$dir/out/log" || true
done
go tool covdata percent -i="$dir/data"
go tool covdata textfmt -i="$dir/data" -o="$dir/profile"
go tool cover -func="$dir/profile" | tail -1
if [ -n "${COVER_PROFILE:-}" ]; then cp "$dir/profile" "$COVER_PROFILE"; fi
