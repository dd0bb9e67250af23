"""The list of outside editors: models at OpenAI-compatible endpoints that write self-edits instead of the policy.

A key comes from a file or a variable that the list names, never from the list itself.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sealkit.endpoint import EndpointOptions
from sealkit.errors import InvalidConfig


class EditorEntry(EndpointOptions):
    """[[editor]] of the file: its name in runs, its model at the endpoint, and the endpoint.

    [[editor]]
    name = "outside"                 # as runs name it
    model = "some-model"             # as the endpoint names it
    url = "https://host/v1"
    api_key_env = "OUTSIDE_API_KEY"  # or api_key_file
    chat_template_kwargs = { enable_thinking = false }
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    model: str = Field(min_length=1)
    seeds: bool = Field(True, description="Whether the endpoint takes `seed`.")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the model's chat template, as vLLM and SGLang take them."
    )


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    editor: tuple[EditorEntry, ...] = ()


def read_entries(file: str) -> tuple[EditorEntry, ...]:
    """The editors that the file lists; none without a file. Raises InvalidConfig with the faulty entry."""
    if not file:
        return ()
    try:
        entries = _File.model_validate(tomllib.loads(Path(file).read_text(encoding="utf-8"))).editor
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(f"editors file {file} cannot be read: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidConfig(f"editors file {file}: {faults}") from error
    names = [entry.name for entry in entries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidConfig(f"editors file {file}: duplicate editor {', '.join(sorted(twice))}")
    return entries
