"""Turn a completion and its passage into the texts an adapter trains on (SEAL, arXiv 2506.10943, knowledge setting).

The rules reproduce what SEAL does, oddities included, because a model's published scores belong to exactly these
sequences; `benchmarks/reference_parity.py sequences` checks them on recorded data. In order:

1. question-and-answer text, when lines are split, is one example a question;
2. otherwise `---` separates examples, and, when lines are split, each line of each part is one;
3. every example is headed by the title on a line of its own, and the passage itself comes last.
"""

import re

_SEPARATOR = "---"
_QUESTION = re.compile(r"Question\s+\d+:")
_NEXT_QUESTION = re.compile(r"\n(?=Question\s+\d+:)")


def training_sequences(completion: str, *, title: str, context: str, split_newlines: bool) -> list[str]:
    """Return the training texts of one completion, the passage last.

    Args:
        completion: The raw sampled text; any string, the empty one included.
        title: Heads every text as it is given, followed by a newline; its own whitespace is kept.
        context: The passage; outer whitespace is dropped.
        split_newlines: Train on each line (or each question) by itself instead of on whole parts.

    Returns:
        At least one text. An empty completion leaves the passage, and before it, when lines are not split, the bare
        title: SEAL trains on that too.
    """
    text = completion.strip()
    if not split_newlines:
        examples = _parts(text)
    elif _is_question_list(text):
        examples = _questions(text)
    else:
        examples = _lines(text)
    return [f"{title}\n{example}" for example in (*examples, context.strip())]


def _parts(text: str) -> list[str]:
    """Split at the separator; text that holds nothing else is its own single part."""
    return [part for piece in text.split(_SEPARATOR) if (part := piece.strip())] or [text]


def _lines(text: str) -> list[str]:
    """Split into non-empty lines, without a first line that only introduces a numbered list."""
    # splitlines() also breaks at \r, \v, \x85 and U+2028, as the reference does.
    lines = [line for part in _parts(text) for raw in part.splitlines() if (line := raw.strip())]
    introduces_list = len(lines) > 1 and lines[1].startswith("1.")
    return lines[1:] if introduces_list else lines


def _is_question_list(text: str) -> bool:
    """Tell whether the text is in "Question n: / Answer:" form; a numbered "Answer n:" alone does not make it so."""
    return "Answer:" in text and (_QUESTION.match(text) or _NEXT_QUESTION.search(text)) is not None


def _questions(text: str) -> list[str]:
    """Split before each question that starts a line.

    The prompt of this style ends in "Question 1:", so a completion that goes straight on with the question gets that
    label back. Only the first example is stripped: a blank line before the next question stays as a trailing newline.
    """
    first, *rest = _NEXT_QUESTION.split(text)
    labelled = first if _QUESTION.match(first) else f"Question 1: {first}"
    return [labelled.strip(), *rest]
