"""The inner loop timed against other ways of training the same adapters: `python -m benchmarks.inner_loop --help`.

trials      the models, and what each trial trains on
ways        SEAL's way, a plain way, HF Trainer, ours
child       one way in a process of its own: its time, and its memory
measure     repeats of all ways, interleaved
table       what came out
"""
