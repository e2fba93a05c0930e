#!/bin/sh
# tests/fuzz/run.sh BUILD-DIR: runs every fuzz target for WEFT_FUZZ_SECONDS (30) on its corpus in tests/fuzz/corpus/NAME.
# Inputs found on the way, each target's NAME.log and crashes stay in BUILD-DIR; add a crash to the corpus and it is a test from then on.
set -eu
build=$1
here=$(dirname "$0")
seconds=${WEFT_FUZZ_SECONDS:-30}
ran=0
for program in "$build"/bin/*_fuzz; do
    [ -x "$program" ] || continue
    name=$(basename "$program" _fuzz)
    mkdir -p "$build/corpus/$name"
    seeds=$here/corpus/$name
    [ -d "$seeds" ] || seeds=
    echo "fuzz $name for $seconds s"
    # shellcheck disable=SC2086  # no seeds: no argument
    if ! "$program" -max_total_time="$seconds" -max_len=65536 -len_control=0 -print_final_stats=1 \
        -artifact_prefix="$build/$name-" "$build/corpus/$name" $seeds > "$build/$name.log" 2>&1; then
        tail -n 60 "$build/$name.log" >&2
        exit 1
    fi
    grep -a '^stat::\(number\|average\|peak\)' "$build/$name.log"
    ran=$((ran + 1))
done
[ "$ran" -gt 0 ] || { echo "no fuzz target in $build/bin" >&2; exit 1; }
