#!/usr/bin/env bash
# Builds the fuzz targets, for a fuzzer and the address sanitizer, and runs each
# from its corpus in the tree.
#
#   run.sh                  a short run of all: fixed seeds and numbers of runs
#   run.sh TARGET RUNS      one target, with a corpus that grows in target/corpus
#
# It takes the stable toolchain and a C++ compiler (libFuzzer is built from
# source). What it finds is in target/findings; `cargo fuzz` works here, too.
set -euo pipefail
cd "$(dirname "$0")"

host=$(rustc -vV | sed -n 's/^host: //p')
# As cargo-fuzz does; RUSTC_BOOTSTRAP lets a stable compiler take them.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address -Cpasses=sancov-module \
-Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
cargo build --release --bins --target "$host"
programs=target/$host/release

fuzz() { # target, runs, corpora
    local target=$1 runs=$2 log=target/findings/$1.log start=$SECONDS
    shift 2
    mkdir -p target/findings
    if ! nice "$programs/$target" -seed=1 -runs="$runs" -max_len=8192 -timeout=20 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="target/findings/$target-" "$@" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        echo "$target: a finding; once more: tools/fuzz/$programs/$target FILE" >&2
        return 1
    fi
    local executions
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    echo "$target: $executions executions, $((SECONDS - start)) s"
}

if [ $# = 2 ]; then
    mkdir -p "target/corpus/$1"
    fuzz "$1" "$2" "target/corpus/$1" "corpus/$1"
    exit
fi

# What is found in a short run goes into a corpus that is thrown away.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
while read -r target runs; do
    mkdir "$work/$target"
    fuzz "$target" "$runs" "$work/$target" "corpus/$target"
done <<'RUNS'
varint 1000000
header 100000
record 300000
edit 200000
reference 100000
log 50000
block 50000
lz4 50000
zstd 50000
filter 200000
index 100000
partition 100000
top_index 100000
ranges 100000
properties 100000
footer 100000
identity 20000
manifest 20000
directory 500
import 200000
RUNS
