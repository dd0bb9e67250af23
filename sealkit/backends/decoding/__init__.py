"""Continuous batching in process: rows of any adapters and sampling decode together. Nothing here knows asyncio but
`adapters.py` and `flips.py`; `sealkit.backends.transformers` puts the rooms together.

row.py       one text in the making: its tokens, when it ends
cache.py     keys and values of all rows in one block of memory
lora.py      adapters side by side on the model's linears, each row with its own
sampling.py  the next token of each row, from its own seed alone
grammar.py   which tokens a JSON schema allows next
prefill.py   which rows share a beginning, and which are read in one pass
engine.py    the step: admit, read, decode, let go
stable.py    an engine whose rows are the same to the bit in any company
flips.py     how many texts company changes where it can
divergence.py  how far adapters move the model, read without decoding
loop.py      the one thread that runs the engine, and its bounded queue
adapters.py  adapters fetched from the store, proven, kept in memory
"""
