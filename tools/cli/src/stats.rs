//! `ouro stats`: the engine's counters, for people or as JSON.

use ourodb::Stats;
use serde_json::{Value, json};

/// The counters as one JSON object, names with their units.
pub(crate) fn to_json(stats: &Stats) -> Value {
    json!({
        "format": 1,
        "shards": stats.shards,
        "owners": stats.owners,
        "tables": stats.tables,
        "table_bytes": stats.table_bytes,
        "wal_segments": stats.wal_segments,
        "wal_bytes": stats.wal_bytes,
        "memtable_bytes": stats.memtable_bytes,
        "device_reads": stats.device_reads,
        "device_read_bytes": stats.device_read_bytes,
        "device_writes": stats.device_writes,
        "device_write_bytes": stats.device_write_bytes,
        "device_syncs": stats.device_syncs,
        "metadata_ops": stats.metadata_ops,
        "puts": stats.puts,
        "put_bytes": stats.put_bytes,
        "wal_groups": stats.wal_groups,
        "wal_records": stats.wal_records,
        "flushes": stats.flushes,
        "filter_probes": stats.filter_probes,
        "filter_negatives": stats.filter_negatives,
        "filter_false_positives": stats.filter_false_positives,
    })
}
