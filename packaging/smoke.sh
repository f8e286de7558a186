#!/bin/sh
# What an installed braggshot must do, wherever it was installed: packaging/smoke.sh [PROGRAM], in an empty folder of its own.
set -eu
program=${1:-braggshot}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
set -x
"$program" --version
"$program" doctor
"$program" info flagship
"$program" simulate -o crystal.cxi --shape 32 32 32 --seed 1 --phase-range 1 --counts 1e6
"$program" reconstruct crystal.cxi --method refine -o out
test -s out/crystal.cxi && test -s out/crystal.vti && test -s out/crystal.png && test -s out/crystal.html
