"""Texts learned one after the other: what is left of each, and of what the model could do before."""
