#!/usr/bin/env bash
# Compares `ouro-bench device` with fio: the same requests, in turn. Medians of the rounds; the ratio
# is that of theirs, for what a round has of the host, both have.
#
#   tools/bench/fio.sh DIR    on the disk of this directory
#   tools/bench/fio.sh zram   on ext4 over a zram device that is made for it (needs root)
#
# A round is TURNS tests of each, in alternation: what the host takes from a virtual machine for
# seconds at a time falls on both. A round's rate is the mean of its turns.
#
# Variables: ROUNDS (5), TURNS (1; 8 on zram), TEST_SECONDS (2; 0.7 on zram), FILE_MIB (512; 128
# on zram, which has room for two such files in 3 GiB), OURO_BENCH (target/release/ouro-bench),
# JOBS (a pattern of the jobs to run).

set -euo pipefail
export LC_ALL=C

if [ "${1:-}" = zram ]; then turns=8 seconds=0.7 file_mib=128; else turns=1 seconds=2 file_mib=512; fi
rounds=${ROUNDS:-5}
turns=${TURNS:-$turns}
seconds=${TEST_SECONDS:-$seconds}
file_mib=${FILE_MIB:-$file_mib}
milliseconds=$(awk -v s="$seconds" 'BEGIN { printf "%dms", s * 1000 }')
bench=${OURO_BENCH:-target/release/ouro-bench}

die() { echo "fio.sh: $*" >&2; exit 2; }
[ $# = 1 ] || die "name a directory, or zram"
command -v fio > /dev/null || die "fio is missing: apt-get install fio"
[ -x "$bench" ] || die "$bench is missing: cargo build --release -p ouro-bench"

work=$(mktemp -d)
device=
dir=
clean_up() {
    [ -z "$dir" ] || rm -rf "$dir"
    if [ -n "$device" ]; then
        mountpoint -q "$work/zram" && umount "$work/zram"
        echo 1 > "/sys/block/zram$device/reset"
        echo "$device" > /sys/class/zram-control/hot_remove
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

if [ "$1" = zram ]; then
    modprobe -q zram 2> /dev/null || true
    device=$(cat /sys/class/zram-control/hot_add)
    echo 3G > "/sys/block/zram$device/disksize"
    mkfs.ext4 -q "/dev/zram$device"
    mkdir "$work/zram"
    # What a removed file held is given back: the next one is made of the same memory.
    mount -o discard "/dev/zram$device" "$work/zram"
    dir=$(mktemp -d "$work/zram/fio.XXXXXX")
else
    [ -d "$1" ] || die "there is no directory $1"
    dir=$(mktemp -d "$1/fio.XXXXXX")
fi

# The median of the lines of a file.
median() { sort -n "$1" | awk '{ x[NR] = $1 } END { print x[int((NR + 1) / 2)] }'; }

# The means of the columns of a file.
means() { awk '{ for (i = 1; i <= NF; i++) sum[i] += $i } END { print sum[1] / NR, sum[2] / NR }' "$1"; }

# Requests a second of ours, and its CPU time for each in us.
ours() { # operation io depth
    "$bench" device --dir "$dir" --bytes "${file_mib}MiB" --seconds "$seconds" \
        --operation "$1" --io "$2" --depth "$3" --json "$work/ours.json" > /dev/null
    awk -F '[:,]' '/"ops_per_s"/ { rate = $2 } /"cpu_ns_per_op"/ { cpu = $2 / 1000 }
        END { print rate, cpu }' "$work/ours.json"
}

# The same of fio. Its jobs of one thread each have a part of the file where requests follow
# one another, for else they all were at one place.
fios() { # operation io depth
    local engine jobs part options
    if [ "$2" = ring ]; then
        engine=(--ioengine=io_uring "--iodepth=$3" --fixedbufs --registerfiles)
        jobs=1
    else
        engine=(--ioengine=psync --thread "--numjobs=$3" --group_reporting)
        jobs=$3
    fi
    part=$((file_mib / jobs))
    case $1 in
    random-read) options=(--rw=randread --bs=4k --norandommap "--size=${file_mib}m") ;;
    sequential-read) options=(--rw=read --bs=1m "--size=${part}m" "--offset_increment=${part}m") ;;
    sequential-write) options=(--rw=write --bs=1m "--size=${part}m" "--offset_increment=${part}m") ;;
    durable-write)
        options=(--rw=write --bs=4k --sync=dsync "--size=${part}m" "--offset_increment=${part}m") ;;
    esac
    # One latency of each request is taken, as ours does.
    options+=(--disable_slat=1 --disable_clat=1)
    # A file that was just written, as ours is: on zram, where it is in memory makes a fifth.
    rm -f "$dir/fio"
    fio --name=fill "--filename=$dir/fio" "--size=${file_mib}m" --rw=write --bs=1m --direct=1 \
        --refill_buffers --end_fsync=1 --minimal > /dev/null
    fio --name=job "--filename=$dir/fio" --direct=1 --time_based "--runtime=$milliseconds" \
        "${engine[@]}" "${options[@]}" --minimal |
        awk -F ';' -v jobs="$jobs" '{ rate = $8 + $49; print rate, ($88 + $89) * 1e4 * jobs / rate }'
}

printf '%-16s %-8s %5s  %10s %10s  %6s  %8s %8s  %s\n' \
    operation io depth ours/s fio/s ratio 'CPU ours' 'CPU fio' 'ratios of the rounds'
while read -r operation io depth; do
    [[ "$operation $io $depth" == *${JOBS:-}* ]] || continue
    rm -f "$work"/*.rate "$work"/*.cpu
    for ((round = 0; round < rounds; round++)); do
        rm -f "$work"/*.turns
        for ((turn = 0; turn < turns; turn++)); do
            order=(ours fios)
            (((round + turn) % 2 == 0)) || order=(fios ours)
            for which in "${order[@]}"; do
                "$which" "$operation" "$io" "$depth" >> "$work/$which.turns" ||
                    die "$which failed: $operation $io $depth"
            done
        done
        for which in ours fios; do
            read -r rate cpu < <(means "$work/$which.turns")
            echo "$rate" >> "$work/$which.rate"
            echo "$cpu" >> "$work/$which.cpu"
        done
    done
    paste "$work/ours.rate" "$work/fios.rate" | awk '{ printf "%.3f\n", $1 / $2 }' > "$work/ratios"
    awk -v name="$operation $io $depth" -v ours="$(median "$work/ours.rate")" \
        -v fio="$(median "$work/fios.rate")" -v ours_cpu="$(median "$work/ours.cpu")" \
        -v fio_cpu="$(median "$work/fios.cpu")" -v ratio="$(median "$work/ratios")" \
        -v ratios="$(xargs < "$work/ratios")" 'BEGIN {
            split(name, part, " ")
            printf "%-16s %-8s %5d  %10.0f %10.0f  %6.3f  %6.2fus %6.2fus  %s\n", part[1], part[2],
                part[3], ours, fio, ratio, ours_cpu, fio_cpu, ratios }'
done << 'JOBS'
random-read ring 1
random-read ring 16
random-read ring 64
random-read blocking 1
random-read blocking 16
sequential-read ring 4
sequential-read blocking 1
sequential-write ring 4
sequential-write blocking 1
durable-write ring 1
durable-write ring 16
durable-write blocking 1
durable-write blocking 16
JOBS
