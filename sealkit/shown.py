"""How text of others is shown: nothing in it controls a terminal or breaks a line."""

from __future__ import annotations

import re

NOT_SHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that control a terminal, break a line or turn the direction of writing, and halves of surrogate pairs. No
name may contain one, and none is shown as it is."""


def visible(text: str, *, keep: str = "") -> str:
    """The text with its control characters as escapes, except those in `keep`."""
    return NOT_SHOWN.sub(lambda found: found[0] if found[0] in keep else repr(found[0])[1:-1], text)
