#!/usr/bin/env bash
# Checks for the programs that the tests run beside Go: a C compiler for the race
# detector, PostgreSQL for the second store, strace for the proof of durability, Node
# for the client in another language, curl for the guides. Missing ones are installed with apt when this
# runs as root; otherwise the command to run is printed and the exit status is 1.
set -euo pipefail

have_postgres() {
	command -v postgres >/dev/null && return
	compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}

missing=()
have_postgres || missing+=(postgresql)
command -v strace >/dev/null || missing+=(strace)
command -v node >/dev/null || missing+=(nodejs)
command -v curl >/dev/null || missing+=(curl)
command -v npm >/dev/null || missing+=(npm)
command -v "${CC:-gcc}" >/dev/null || missing+=(gcc libc6-dev)

[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
	echo "the tests need what these Debian packages hold: ${missing[*]}; install them with this system's own package manager" >&2
	exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "the tests need more than is installed here; run:" >&2
	echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
	exit 1
fi
echo "installing what the tests need: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# A cluster made by the package would run for nothing: the tests start their own.
if [[ " ${missing[*]} " == *" postgresql "* ]]; then
	mkdir -p /etc/postgresql-common
	[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}"
