"""The most that a run, a request or a text may hold, each number once.

What crosses a process is checked at the door too, by the rules in the protos; a test holds their numbers to these.
"""

from __future__ import annotations

INT32 = 2**31 - 1
"""Of what travels as a 32-bit number."""

TRIALS = 10_000_000
"""Trials that a run may plan."""

EXAMPLES = 10_000
"""Examples of one training; as many again to rehearse, and as many anchors."""
RANK = 1024
"""Rank of an adapter, also of one that was joined from several."""

QUERIES = 10_000
"""Queries of one evaluation; so also questions of a retention suite."""
VIEWS = 64
"""Ways to ask a query beside the first."""
QUERY_ID_CHARACTERS = 512
RETENTION_CHARACTERS = 10_000
"""Of a question of the retention suite, and of its answer."""

PROMPTS = 1024
"""Prompts of one request to the generator; so also what a self-edit may ask a teacher, and anchors of a run."""
SHOTS = 64
"""Examples in a prompt."""
NAME_CHARACTERS = 256
"""Of a policy's name, and of a run's display name."""

PAGE_ROWS = 1000
"""Rows of a page of a listing."""
