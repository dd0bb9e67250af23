"""Times the inner loop against other ways of training the same adapters: `python -m benchmarks.inner_loop --help`.

trials      the models, and the data of each trial
ways        SEAL's way, a plain loop, HF Trainer, ours
child       one way in a separate process: its time and memory
measure     interleaved repeats of all ways
table       the results
"""
