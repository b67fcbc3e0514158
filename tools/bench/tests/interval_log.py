"""Reads an interval log of ouro-bench with the PyPI package hdrhistogram, and holds it against
the JSON result of the same run: interval_log.py RESULT.json LOG"""

import json
import sys

from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

HOUR_NS = 3600 * 10**9


def main(result_path, log_path):
    with open(result_path, encoding="utf-8") as file:
        result = json.load(file)
    expected = result["result"]["operations"]
    totals = {}
    reader = HistogramLogReader(log_path, HdrHistogram(1, HOUR_NS, 3))
    started_ms = None
    while (interval := reader.get_next_interval_histogram()) is not None:
        tag = interval.get_tag()
        total = totals.setdefault(tag, HdrHistogram(1, HOUR_NS, 3))
        total.add(interval)
        started_ms = started_ms or interval.get_start_time_stamp()
    assert started_ms is not None, "the log has no interval"
    started_s = started_ms / 1000
    assert abs(started_s - result["started_unix_s"]) < 60, f"it begins at {started_s}"
    is_open = result["config"]["loop"] == "open"
    tags = {tag for kind in expected for tag in ([kind, f"{kind}-service"] if is_open else [kind])}
    assert set(totals) == tags, f"{set(totals)} in place of {tags}"
    for kind, operation in expected.items():
        for tag, latency in ((kind, operation["latency_ns"]), (f"{kind}-service", operation["service_ns"])):
            if latency is None:
                continue
            total = totals[tag]
            assert total.get_total_count() == operation["ops"], f"{tag}: {total.get_total_count()} operations"
            for name, percentile in (("p50", 50), ("p99", 99), ("p99_9", 99.9), ("max", 100)):
                # Of a share that is no whole number of operations, either neighbour.
                one = 100 / operation["ops"]
                low = total.get_value_at_percentile(percentile - one)
                high = total.get_value_at_percentile(min(percentile + one, 100))
                wanted = latency[name]
                assert low * 0.999 <= wanted <= high * 1.001, f"{tag} {name}: {low} to {high}, not {wanted}"
            print(f"{tag}: {operation['ops']} operations, p99 {latency['p99']} ns")


main(*sys.argv[1:])
