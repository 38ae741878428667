#!/bin/sh
# Writes what `p2pmirror configure` prints into deploy/: sh tools/platforms.sh P2PMIRROR [DIRECTORY]
set -eu
cd "$(dirname "$0")/.."
to=${2:-deploy}
mkdir -p "$to/talos" "$to/k3s" "$to/kind"
"$1" configure talos --namespace p2pmirror > "$to/talos/patch.yaml" 2>/dev/null
"$1" configure talos --namespace p2pmirror --talos-version 1.14 > "$to/talos/patch-1.14.yaml" 2>/dev/null
"$1" configure k3s > "$to/k3s/registries.yaml" 2>/dev/null
"$1" configure kind > "$to/kind/kind.yaml" 2>/dev/null
