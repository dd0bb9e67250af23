"""The environment variables that any process of the suite reads, and those that look like one and are none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources

_ALIKE = 0.8
_OF_KUBERNETES = re.compile(r"SEAL_[A-Z0-9_]*(SERVICE_(HOST|PORT\w*)|PORT|PORT_\d+_(TCP|UDP)\w*)")
"""Kubernetes sets these in every container for a Service named `seal-…`."""


def known_variables() -> frozenset[str]:
    """Every variable, as `scripts/write_variables.py` lists them from the settings."""
    return frozenset(resources.files("sealkit.data").joinpath("variables.txt").read_text(encoding="ascii").split())


def misspelt(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables `SEAL_…` that no process reads and that look like one that is read: (name, the nearest known one).
    Nothing else is reported: a name that is like no other may belong to another program."""
    names = [name for name in sorted(environment) if name.startswith("SEAL_") and not _OF_KUBERNETES.fullmatch(name)]
    known = known_variables() if names else frozenset()
    for name in names:
        if name in known:
            continue
        from difflib import get_close_matches

        if near := get_close_matches(name, known, n=1, cutoff=_ALIKE):
            yield name, near[0]
