"""Data files of the package: `retention.jsonl`, the default retention suite."""
