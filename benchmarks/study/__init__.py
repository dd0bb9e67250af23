"""Does ReST^EM pay? Runs of the whole stack, their records, and the page made from them: see `__main__`."""
