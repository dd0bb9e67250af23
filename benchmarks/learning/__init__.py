"""What an adapter learns of a text and what it forgets, by the way it is trained: see `__main__`."""
