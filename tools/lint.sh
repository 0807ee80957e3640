#!/usr/bin/env bash
# All checks that need no test to run. Every one runs; the exit status is 1 when any of
# them found something.
#   BIN      where the tools of tools/go.mod were built
#   MODULES  modules to lint
#   TIDY     modules whose go.mod must be tidy
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export PATH="$BIN:$PATH"
failed=()

check() { # name, command...
	local name=$1 started=$SECONDS
	shift
	if "$@"; then
		printf 'ok    %-28s %ss\n' "$name" $((SECONDS - started))
	else
		printf 'FAIL  %-28s %ss\n' "$name" $((SECONDS - started))
		failed+=("$name")
	fi
}

format() {
	local bad
	bad=$(git ls-files --cached --others --exclude-standard '*.go' ':!*.pb.go' ':!*.pb.gw.go' | xargs -r ls 2>/dev/null | xargs -r gofumpt -l) || return 1
	[ -z "$bad" ] && return
	printf 'not formatted (make fmt):\n%s\n' "$bad"
	return 1
}

# The private modules are not in go.work, so they are linted without it.
linters() {
	local module=$1 work=$root/go.work
	[ "$module" = bench ] && work=off
	(cd "$module" && GOWORK=$work golangci-lint run --config "$root/.golangci.yaml" ./...)
}

generated() {
	local tmp
	tmp=$(mktemp -d) || return 1
	tools/generate.sh "$tmp" || { rm -rf "$tmp"; return 1; }
	local status=0 file
	while read -r file; do
		diff -u "$file" "$tmp/$file" >&2 || status=1
	done < <(cd "$tmp" && find . -type f | sed 's,^\./,,' | sort)
	# A generated file that no .proto file stands behind any more.
	while read -r file; do
		[ -e "$tmp/$file" ] || { echo "$file: no longer generated from any .proto file; remove it" >&2; status=1; }
	done < <(git ls-files '*.pb.go' '*.pb.gw.go')
	rm -rf "$tmp"
	[ $status -eq 0 ] || echo 'generated code is not up to date: run make generate' >&2
	return $status
}

# A release's wire stays readable: checked against the newest tag, once there is one.
breaking() {
	local tag
	tag=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null) || return 0
	buf breaking api --against ".git#tag=$tag,subdir=api"
}

tidy() {
	(cd "$1" && GOWORK=off go mod tidy -diff) && return
	echo "$1/go.mod is not tidy: run make tidy" >&2
	return 1
}

check 'gofumpt' format
check 'buf lint' buf lint
check 'buf breaking' breaking
check 'generated code' generated
for m in $TIDY; do check "tidy $m" tidy "$m"; done
for m in $MODULES; do check "golangci-lint $m" linters "$m"; done

if [ ${#failed[@]} -gt 0 ]; then
	printf 'lint: %d failed:' ${#failed[@]}
	printf ' [%s]' "${failed[@]}"
	echo
	exit 1
fi
echo 'lint: clean'
