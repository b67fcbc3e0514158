#!/usr/bin/env bash
# Tests of the engine under a sanitizer, over memory and over real files, with
# plain system calls in place of io_uring, of which sanitizers see nothing.
#
#   tools/sanitize.sh address
#   tools/sanitize.sh thread     needs: rustup component add rust-src
#
# Both take the stable toolchain, which has the sanitizers' runtimes. The thread
# sanitizer must see the atomics within the standard library, or locks look like
# races: so that is built with it, from its source.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
sanitizer=${1:-}
# A stable compiler takes unstable flags then.
export RUSTC_BOOTSTRAP=1
# rustix by way of libc: of its own system calls a sanitizer sees nothing, and takes
# memory that was unmapped, and mapped again by another thread, for a race.
export RUSTFLAGS="-Zsanitizer=$sanitizer --cfg=rustix_use_libc"
cargo=(cargo test -p ourodb --target "$host" --target-dir "target/$sanitizer")

case $sanitizer in
address)
    # Left alone on purpose: what another thread must not drop.
    suppressions=$(mktemp)
    trap 'rm -f "$suppressions"' EXIT
    echo "leak:another_thread_neither_polls_nor_drops_it" >"$suppressions"
    export ASAN_OPTIONS=detect_leaks=1
    export LSAN_OPTIONS=print_suppressions=0:suppressions=$suppressions
    ;;
thread)
    library=$(rustc --print sysroot)/lib/rustlib/src/rust/library
    [ -d "$library" ] || { echo "the standard library's source is missing: rustup component add rust-src" >&2; exit 2; }
    export TSAN_OPTIONS=halt_on_error=0:second_deadlock_stack=1
    cargo+=(-Zbuild-std)
    ;;
*)
    echo "usage: tools/sanitize.sh address|thread" >&2
    exit 2
    ;;
esac

"${cargo[@]}" --lib
"${cargo[@]}" --test blocking
