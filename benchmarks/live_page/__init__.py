"""Memory and first paint of the live page: `python -m benchmarks.live_page`."""
