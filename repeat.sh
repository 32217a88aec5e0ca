#!/usr/bin/env bash
# Runs the whole process-test suite again and again, several at a time, which load the machine for each other: by default 100
# runs, 4 at a time. Run it as ci.sh, inside a pids cgroup, with room for some thousand processes. The output of those that
# fail is kept, and the runs go on. Each takes some 80 s of processor time.
set -eu
cd "$(dirname "$0")"
runs=${1:-100} lanes=${2:-4}
export GORACE=atexit_sleep_ms=0

dir=$(mktemp -d)
chmod 755 "$dir" # some programs become other users
go test -race -c -o "$dir/test" .
export dir
# xargs, and not jobs of this shell: those would ignore SIGINT, and what they start with them.
seq "$runs" | xargs -P "$lanes" -I{} bash -c '
	mkdir -m 1777 "$dir/tmp{}"
	if TMPDIR=$dir/tmp{} "$dir/test" -test.shuffle=on -test.timeout 30m >"$dir/{}.log" 2>&1; then
		rm -r "$dir/{}.log" "$dir/tmp{}"
		echo "run {}: ok"
	else
		echo "run {}: FAILED, see $dir/{}.log"
		touch "$dir/failed"
	fi'
[ ! -e "$dir/failed" ] || exit 1
rm -r "$dir"
