//! Statistics and latencies as Prometheus reads them: its text format, version 0.0.4.
//!
//! Latencies are histograms, not summaries: those can be added up over processes. Each
//! operation has all parts that it may wait for from the start, as a series that begins
//! late looks like a reset.

use std::fmt::Write;

use hdrhistogram::Histogram;

use crate::base::latency::Operation;
use crate::db::latencies::Latencies;
use crate::db::stats::{LevelStats, Stats};

/// The upper bounds of the buckets of latencies, in nanoseconds.
const BOUNDS_NS: [u64; 25] = [
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    60_000_000_000,
];

/// What Prometheus calls the kind of a metric.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A text in the making.
struct Text(String);

impl Text {
    /// What follows are values of this metric.
    fn begin(&mut self, kind: Kind, name: &str, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP ourodb_{name} {help}"));
        self.line(format_args!("# TYPE ourodb_{name} {kind}"));
    }

    /// A line of its own.
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes all that is written to it");
    }

    /// Metrics of one value each.
    fn values(&mut self, kind: Kind, metrics: &[(&str, u64, &str)]) {
        for (name, value, help) in metrics {
            self.begin(kind, name, help);
            self.line(format_args!("ourodb_{name} {value}"));
        }
    }

    /// A metric of one value, in seconds.
    fn seconds(&mut self, kind: Kind, name: &str, ns: u64, help: &str) {
        self.begin(kind, name, help);
        self.line(format_args!("ourodb_{name} {}", seconds(ns.into())));
    }

    /// One histogram of a metric, with these labels.
    fn histogram(&mut self, name: &str, labels: &str, histogram: &Histogram<u64>) {
        let mut recorded = histogram.iter_recorded().peekable();
        let (mut count, mut sum_ns) = (0, 0);
        let mut up_to = |bound_ns: u64| {
            while let Some(bucket) = recorded.next_if(|bucket| {
                histogram.median_equivalent(bucket.value_iterated_to()) <= bound_ns
            }) {
                let ns = histogram.median_equivalent(bucket.value_iterated_to());
                count += bucket.count_at_value();
                sum_ns += u128::from(ns) * u128::from(bucket.count_at_value());
            }
            (count, sum_ns)
        };
        for bound_ns in BOUNDS_NS {
            let (count, _) = up_to(bound_ns);
            let bound = seconds(bound_ns.into());
            self.line(format_args!("ourodb_{name}_bucket{{{labels},le=\"{bound}\"}} {count}"));
        }
        let (count, sum_ns) = up_to(u64::MAX);
        self.line(format_args!("ourodb_{name}_bucket{{{labels},le=\"+Inf\"}} {count}"));
        self.line(format_args!("ourodb_{name}_sum{{{labels}}} {}", seconds(sum_ns)));
        self.line(format_args!("ourodb_{name}_count{{{labels}}} {count}"));
    }
}

fn seconds(ns: u128) -> f64 {
    ns as f64 / 1e9
}

/// The whole text.
pub(super) fn text(stats: &Stats, latencies: &Latencies) -> String {
    let mut text = Text(String::new());
    of_stats(&mut text, stats);
    of_latencies(&mut text, latencies);
    text.0
}

fn of_latencies(text: &mut Text, latencies: &Latencies) {
    let name = "operation_duration_seconds";
    text.begin(Kind::Histogram, name, "How long operations took.");
    for operation in Operation::ALL {
        let labels = format!("op=\"{}\"", operation.name());
        text.histogram(name, &labels, latencies.whole(operation));
    }
    let name = "operation_part_duration_seconds";
    text.begin(Kind::Histogram, name, "What operations waited for, as far as they did.");
    for operation in Operation::ALL {
        for part in operation.parts() {
            let labels = format!("op=\"{}\",part=\"{}\"", operation.name(), part.name());
            text.histogram(name, &labels, latencies.part(operation, *part));
        }
    }
}

fn of_levels(text: &mut Text, levels: &[LevelStats]) {
    let metrics: [(&str, fn(&LevelStats) -> u64, &str); 5] = [
        ("level_tables", |level| level.tables, "Tables."),
        ("level_runs", |level| level.runs, "Sorted runs, over all shards."),
        ("level_bytes", |level| level.bytes, "Bytes of tables."),
        ("level_entries", |level| level.entries, "Entries of tables: versions of keys."),
        ("level_tombstones", |level| level.tombstones, "Entries that are deletes."),
    ];
    for (name, of, help) in metrics {
        text.begin(Kind::Gauge, name, help);
        for (number, level) in levels.iter().enumerate() {
            text.line(format_args!("ourodb_{name}{{level=\"{number}\"}} {}", of(level)));
        }
    }
}

// All fields are named, so that none is forgotten.
#[rustfmt::skip]
fn of_stats(text: &mut Text, stats: &Stats) {
    let Stats {
        shards, owners, tables, table_bytes, damaged_tables, levels, value_files, value_bytes,
        garbage_bytes, spare_bytes, compaction_debt_bytes, pinned_bytes, partitioned_tables,
        wal_segments, wal_bytes, wal_map_bytes, memtable_bytes, memtable_bytes_max, recycled_bytes,
        immutable_memtables, device_reads, device_read_bytes, device_writes, device_write_bytes,
        device_syncs, metadata_ops, puts, put_bytes, wal_groups, wal_durable_groups, wal_syncs,
        wal_records, wal_record_bytes, wal_written_bytes, wal_marks, flushes, flushed_bytes,
        compactions, compaction_read_bytes, compaction_written_bytes, tables_moved, files_reused,
        write_stalls, writes_delayed, write_delay_ns, slow_writes_memtable, slow_writes_delayed,
        slow_writes_log, slow_writes_device, owner_messages, owner_wakeups, owner_sleeps,
        owner_slices_long, owner_slice_ns_max, shard_hold_ns_max, requests_outstanding,
        background_worker_slices, background_owner_slices, background_moves,
        background_waited_bytes, cache_hits, cache_misses, cache_inserted, cache_evicted,
        cache_refused, cache_blocks, cache_bytes, cache_capacity_bytes, partition_hits,
        partition_misses, partition_inserted, partition_evicted, partition_refused,
        partition_cache_bytes, partition_cache_capacity_bytes, filter_probes, filter_negatives,
        filter_false_positives,
    } = *stats;
    text.values(Kind::Gauge, &[
        ("shards", shards as u64, "Shards of the keyspace."),
        ("owners", owners as u64, "Owners: threads for background work, each with a WAL stream."),
        ("damaged_tables", damaged_tables, "Tables that could not be opened because they are damaged."),
    ]);
    of_levels(text, &levels);
    text.values(Kind::Gauge, &[
        ("tables", tables, "Tables, on all levels."),
        ("table_bytes", table_bytes, "Bytes of tables, on all levels."),
        ("value_files", value_files, "Files with values above 64 KiB."),
        ("value_bytes", value_bytes, "Bytes of values above 64 KiB."),
        ("garbage_bytes", garbage_bytes, "Bytes of tables that nobody can read any more; an estimate."),
        ("spare_bytes", spare_bytes, "Bytes of table files that wait to be used again, or removed."),
        ("compaction_debt_bytes", compaction_debt_bytes, "Bytes of tables that compaction will merge next."),
        ("pinned_bytes", pinned_bytes, "Bytes of memory that open tables take for good."),
        ("partitioned_tables", partitioned_tables, "Tables whose filters and indexes do not stay in memory."),
        ("wal_segments", wal_segments, "Live log segments."),
        ("wal_bytes", wal_bytes, "Bytes of live log segments."),
        ("wal_map_bytes", wal_map_bytes, "Bytes of mapped buffers of the log."),
        ("memtable_bytes", memtable_bytes, "Bytes of memory that memtables hold."),
        ("memtable_max_bytes", memtable_bytes_max, "Bytes at which a shard's memtable is flushed now."),
        ("recycled_bytes", recycled_bytes, "Bytes of memory kept for memtables to come."),
        ("immutable_memtables", immutable_memtables, "Memtables on their way into tables."),
        ("requests_outstanding", requests_outstanding, "Requests of futures that are outstanding."),
        ("cache_blocks", cache_blocks, "Blocks in the block caches."),
        ("cache_bytes", cache_bytes, "Bytes of blocks in the block caches."),
        ("cache_capacity_bytes", cache_capacity_bytes, "Bytes that the block caches have room for."),
        ("partition_cache_bytes", partition_cache_bytes, "Bytes of memory that cached partitions take."),
        ("partition_cache_capacity_bytes", partition_cache_capacity_bytes, "Bytes of memory that cached partitions may take."),
    ]);
    text.seconds(Kind::Gauge, "owner_slice_max_seconds", owner_slice_ns_max, "The longest slice of work on an owner.");
    text.seconds(Kind::Gauge, "shard_hold_max_seconds", shard_hold_ns_max, "The longest hold of a shard's lock; measured in debug builds only.");
    text.values(Kind::Counter, &[
        ("device_reads_total", device_reads, "Read requests to the device."),
        ("device_read_bytes_total", device_read_bytes, "Bytes that read requests asked for."),
        ("device_writes_total", device_writes, "Write requests to the device."),
        ("device_write_bytes_total", device_write_bytes, "Bytes of write requests."),
        ("device_syncs_total", device_syncs, "Syncs of files and directories."),
        ("metadata_ops_total", metadata_ops, "Files opened, created, renamed, removed; directories listed."),
        ("puts_total", puts, "Writes: puts and deletes, also those of batches."),
        ("put_bytes_total", put_bytes, "Bytes of keys and values of writes."),
        ("wal_groups_total", wal_groups, "Groups of log records, each written at once."),
        ("wal_durable_groups_total", wal_durable_groups, "Groups that their own write made durable."),
        ("wal_syncs_total", wal_syncs, "Syncs of groups that were written before."),
        ("wal_records_total", wal_records, "Log records."),
        ("wal_record_bytes_total", wal_record_bytes, "Bytes of log records."),
        ("wal_written_bytes_total", wal_written_bytes, "Bytes of groups as written, padding included."),
        ("wal_marks_total", wal_marks, "Groups that only prove that the last one was durable."),
        ("flushes_total", flushes, "Memtables that became tables."),
        ("flushed_bytes_total", flushed_bytes, "Bytes of tables that memtables became."),
        ("compactions_total", compactions, "Compactions."),
        ("compaction_read_bytes_total", compaction_read_bytes, "Bytes of tables that were merged."),
        ("compaction_written_bytes_total", compaction_written_bytes, "Bytes of the tables that came of it."),
        ("tables_moved_total", tables_moved, "Tables that were moved to another level as they were."),
        ("files_reused_total", files_reused, "Tables that were written over files that nobody read any more."),
        ("write_stalls_total", write_stalls, "Times a write waited because memtables were full."),
        ("writes_delayed_total", writes_delayed, "Writes that were delayed because background work was behind."),
    ]);
    text.seconds(Kind::Counter, "write_delay_seconds_total", write_delay_ns, "How long writes were delayed.");
    text.begin(Kind::Counter, "slow_writes_total", "Writes that took longer than 20 ms, by what took most of it.");
    for (cause, count) in [
        ("memtable", slow_writes_memtable),
        ("delay", slow_writes_delayed),
        ("log", slow_writes_log),
        ("device", slow_writes_device),
    ] {
        text.line(format_args!("ourodb_slow_writes_total{{cause=\"{cause}\"}} {count}"));
    }
    text.values(Kind::Counter, &[
        ("owner_messages_total", owner_messages, "Messages that futures sent to owners."),
        ("owner_wakeups_total", owner_wakeups, "System calls made to wake a sleeping owner."),
        ("owner_sleeps_total", owner_sleeps, "Times an owner went to sleep."),
        ("owner_slices_long_total", owner_slices_long, "Slices of work on owners that took longer than a millisecond."),
        ("background_worker_slices_total", background_worker_slices, "Slices of background work done by idle-class threads."),
        ("background_owner_slices_total", background_owner_slices, "Slices of background work done by owners."),
        ("background_moves_total", background_moves, "Times that background work passed from one to the other."),
        ("background_waited_bytes_total", background_waited_bytes, "Bytes of background requests that waited for the device's budget."),
        ("cache_hits_total", cache_hits, "Blocks that were looked for in the block caches and found."),
        ("cache_misses_total", cache_misses, "Blocks that were looked for in the block caches and not found."),
        ("cache_inserted_total", cache_inserted, "Blocks that were put into the block caches."),
        ("cache_evicted_total", cache_evicted, "Blocks that left the block caches to make room."),
        ("cache_refused_total", cache_refused, "Blocks that were not cached for want of room."),
        ("partition_hits_total", partition_hits, "Partitions of filters and indexes that were found in their caches."),
        ("partition_misses_total", partition_misses, "Partitions that were not found there."),
        ("partition_inserted_total", partition_inserted, "Partitions that were put into their caches."),
        ("partition_evicted_total", partition_evicted, "Partitions that left their caches to make room."),
        ("partition_refused_total", partition_refused, "Partitions that were not cached, as they are larger than a cache."),
        ("filter_probes_total", filter_probes, "Lookups that asked a table's filter."),
        ("filter_negatives_total", filter_negatives, "Those that it answered with: certainly not here."),
        ("filter_false_positives_total", filter_false_positives, "Those that it answered with: maybe, and the key was not there."),
    ]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::histogram::{add, empty};

    #[test]
    fn buckets_add_up() {
        let mut histogram = empty();
        for (value, count) in [(3, 1), (250, 2), (251, 64), (999_999, 8), (100_000_000_000, 1)] {
            add(&mut histogram, value, count);
        }
        let mut text = Text(String::new());
        text.histogram("x_seconds", "op=\"get\"", &histogram);
        let lines: Vec<&str> = text.0.lines().collect();
        let find = |start: &str| {
            let line = lines.iter().find(|line| line.starts_with(start)).expect("there is one");
            line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")
        };
        let bucket = |le: &str| find(&format!("ourodb_x_seconds_bucket{{op=\"get\",le=\"{le}\"}}"));
        assert_eq!(lines.len(), BOUNDS_NS.len() + 3);
        assert_eq!(bucket("0.00000025"), 3.0);
        assert_eq!(bucket("0.0000005"), 67.0);
        assert_eq!(bucket("0.0005"), 67.0);
        assert_eq!(bucket("0.0025"), 75.0);
        assert_eq!(bucket("60"), 75.0);
        assert_eq!(bucket("+Inf"), 76.0);
        assert_eq!(find("ourodb_x_seconds_count"), 76.0);
        let sum = find("ourodb_x_seconds_sum");
        assert!((sum / 100.008 - 1.0).abs() < 0.005, "{sum}");
    }
}
