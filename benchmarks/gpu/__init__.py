"""Benchmarks that need a GPU. Each also runs on a CPU with a tiny model, as a smoke test."""
