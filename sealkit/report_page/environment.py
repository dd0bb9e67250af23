"""The templates of pages for people: every value is escaped, and shown without characters that control anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sealkit.report_page.labels import STAGES, duration
from sealkit.shown import visible

FOLDER = Path(__file__).parent
"""Holds the templates and the style sheet that pages share."""


def make_environment(*folders: Path) -> Environment:
    """An environment whose templates are in these folders, or shared."""
    environment = Environment(
        loader=FileSystemLoader([*folders, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clip": clip, "duration": duration, "signed": _signed, "number": _number}
    environment.globals |= {"stage_name": lambda stage: STAGES.get(stage, stage)}
    return environment


def _shown(value: Any) -> Any:
    """Of every expression of the template, before it is escaped."""
    return visible(value, keep="\n\t") if isinstance(value, str) and not isinstance(value, Markup) else value


def clip(text: str, most: int) -> str:
    """The first `most` characters of a text, and how many are left out."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
