"""The code blocks of the README and of other pages."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = README) -> list[str]:
    """The blocks of a page in one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def block_with(language: str, text: str) -> str:
    """The one block in that language that holds `text`."""
    (found,) = (block for block in blocks(language) if text in block)
    return found


def commands() -> list[str]:
    """Every shell line of the README, without settings in front of it."""
    lines = [line for block in blocks("bash") for line in block.splitlines() if line]
    return [re.sub(r"^([A-Z_]+=\S* )+", "", line) for line in lines]
