#!/usr/bin/env bash
# Installs the peers that go run ./bench measures beside the library, from Debian's packages. They are started by hand, in
# directories of their own; no service is enabled. fasthttp and tableflip come as Go modules.
set -eu
packages="perl libparallel-prefork-perl libplack-perl starlet libserver-starter-perl
	runit s6 gunicorn unicorn wrk gcc libc6-dev"
if [ "$(id -u)" != 0 ]; then
	echo "bench/setup.sh: it installs packages, so run it as root" >&2
	exit 1
fi
command -v apt-get >/dev/null || {
	echo "bench/setup.sh: no apt-get here; install by other means:" $packages >&2
	exit 1
}
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # words
apt-get install -y -qq --no-install-recommends $packages >/dev/null
echo "installed:" $packages
