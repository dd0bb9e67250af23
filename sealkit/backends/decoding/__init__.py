"""Continuous batching in process: rows with any adapters and sampling settings decode together. Only `adapters.py` and
`batch_invariance.py` use asyncio; `sealkit.backends.transformers` assembles the modules.

row.py       one sequence: its tokens, when it ends
cache.py     keys and values of all rows in one block of memory
attention.py the model's own masks at the positions of each row
lora.py      adapters side by side on the model's linears, each row with its own
sampling.py  the next token of each row, from the row's own seed
grammar.py   which tokens a JSON schema allows next
prefill.py   which rows share a prefix, and which are prefilled in one pass
engine.py    the step: admit, prefill, decode, release
stable.py    a batch-invariant engine: each row is bitwise the same in any batch
batch_invariance.py  measures how many texts depend on the batch
divergence.py  KL between the base model and adapters, without decoding
loop.py      the one thread that runs the engine, and its bounded queue
adapters.py  adapters fetched from the store, verified, cached in memory
"""
