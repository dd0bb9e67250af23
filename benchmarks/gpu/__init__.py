"""Benchmarks that want a GPU. Each runs on a CPU too, on a tiny model, to show that it runs."""
