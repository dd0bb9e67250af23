"""Limits of runs, requests and texts, each number once.

The validation rules in the protos have the same numbers; a test compares them.
"""

from __future__ import annotations

INT32 = 2**31 - 1
"""Largest value of a field that is sent as an int32."""

TRIALS = 10_000_000
"""Trials of a run."""

EXAMPLES = 10_000
"""Examples of one training; the same limit holds for its rehearsal, and for its anchors."""
RANK = 1024
"""Rank of an adapter, also of one that was joined from several adapters."""

QUERIES = 10_000
"""Queries of one evaluation, and questions of a retention suite."""
VIEWS = 64
"""Other prompts of a query, besides its first."""
OTHER_GOLDS = 255
"""Further gold answers of a query, besides its first."""
QUERY_ID_CHARACTERS = 512
RETENTION_CHARACTERS = 10_000
"""Characters of a question of the retention suite, and of its answer."""

PROMPTS = 1024
"""Prompts of one request to the generator; also questions of a self-edit to a teacher, and anchors of a run."""
SHOTS = 64
"""Examples in a prompt."""
TEXT_CHARACTERS = 1_000_000
"""Characters of each text of a prompt."""
COMPLETION_TOKENS = 32768
"""Tokens of a completion."""
STOPS = 16
STOP_CHARACTERS = 256
"""Texts that end a completion, and characters of one."""
NAME_CHARACTERS = 256
"""Characters of a policy's name, and of a run's display name."""

PAGE_ROWS = 1000
"""Rows of a page of a listing."""

DOCUMENTS = 10_000
"""Documents of a run."""
DOCUMENT_NAME_CHARACTERS = 1024
DOCUMENT_BYTES = 64 * 2**20
"""Bytes of a document; also of the XML of a DOCX once it is unpacked."""
