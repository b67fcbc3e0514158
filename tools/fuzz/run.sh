#!/usr/bin/env bash
# Builds the fuzz targets, and runs each from its corpus in the tree.
#
#   run.sh                  a short run of all: fixed seeds and numbers of runs
#   run.sh TARGET RUNS      one target, under the address sanitizer, with a corpus
#                           that grows in target/corpus
#   run.sh TARGET RUNS SEED the same, by other random numbers
#
# It takes the stable toolchain and a C++ compiler (libFuzzer is built from
# source). What it finds is in target/findings; `cargo fuzz` works here, too.
set -euo pipefail
cd "$(dirname "$0")"

host=$(rustc -vV | sed -n 's/^host: //p')
# As cargo-fuzz does; RUSTC_BOOTSTRAP lets a stable compiler take them.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
if [ $# = 0 ]; then
    # Built within a minute.
    directory=target/short
    export CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=false
else
    directory=target
    RUSTFLAGS+=" -Zsanitizer=address"
fi
cargo build --release --bins --target "$host" --target-dir "$directory"
programs=$directory/$host/release
mkdir -p target/findings

fuzz() { # target, runs, seed, corpora
    local target=$1 runs=$2 seed=$3 log=target/findings/$1.log start=$SECONDS
    shift 3
    if ! nice "$programs/$target" -seed="$seed" -runs="$runs" -max_len=8192 -timeout=20 \
        -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="target/findings/$target-" \
        "$@" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        echo "$target: a finding; once more: tools/fuzz/$programs/$target FILE" >&2
        return 1
    fi
    local executions
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: $executions executions, $((SECONDS - start)) s"
}

if [ $# -ge 2 ]; then
    mkdir -p "target/corpus/$1"
    fuzz "$1" "$2" "${3:-1}" "target/corpus/$1" "corpus/$1"
    exit
fi

# What is found in a short run goes into a corpus that is thrown away.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
short() { # target, runs
    mkdir "$work/$1"
    fuzz "$1" "$2" 1 "$work/$1" "corpus/$1"
}
export -f fuzz short
export programs work
xargs -P "$(nproc)" -n 2 bash -euc 'short "$@"' short <<'RUNS'
directory 50
manifest 2000
identity 2000
import 50000
varint 50000
header 20000
record 40000
edit 40000
reference 40000
log 10000
block 10000
lz4 10000
zstd 10000
filter 50000
index 50000
partition 20000
top_index 40000
ranges 30000
properties 100000
footer 30000
RUNS
