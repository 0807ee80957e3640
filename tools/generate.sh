#!/usr/bin/env bash
# Generates the Go code of every .proto file of the repository below the directory
# given: the repository itself, or an empty one to compare with. buf and the protoc
# plugins must be in PATH.
set -euo pipefail
out=$1
cd "$(dirname "$0")/.."
top=$PWD
# The roots are those of buf.yaml. One with a template of its own keeps it beside its
# files, and the plugins read their mapping files from there.
for root in $(sed -n 's/^  - path: //p' buf.yaml); do
	template=$top/buf.gen.yaml
	[ -f "$root/buf.gen.yaml" ] && template=$top/$root/buf.gen.yaml
	(cd "$root" && buf generate --template "$template" --output "$out/$root")
done
