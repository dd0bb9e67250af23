"""Compares training methods by what an adapter learns of a text and what it forgets: see `__main__`."""
