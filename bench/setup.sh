#!/usr/bin/env bash
# Installs the peers for go run ./bench from Debian packages, without enabling a
# service. Bench starts them itself, in its own directories. The peers fasthttp
# and tableflip are Go modules.
set -eu
packages="perl libparallel-prefork-perl libplack-perl starlet libserver-starter-perl
	runit s6 gunicorn unicorn wrk gcc libc6-dev"
if [ "$(id -u)" != 0 ]; then
	echo "bench/setup.sh: cannot install packages: run it as root" >&2
	exit 1
fi
command -v apt-get >/dev/null || {
	echo "bench/setup.sh: no apt-get: install these packages another way:" $packages >&2
	exit 1
}
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # words
apt-get install -y -qq --no-install-recommends $packages >/dev/null
echo "installed:" $packages
