"""Data that ships with the package: `retention.jsonl`, the default retention suite."""
