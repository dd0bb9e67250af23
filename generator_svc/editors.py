"""Outside editors: models at OpenAI-compatible endpoints that write self-edits in the policy's place.

The operator lists them in a file; runs name them in `editor.arms`. A key comes from a file or a variable that the list
names, never from the list itself.
"""

from __future__ import annotations

import time
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sealkit.backends.base import Generation
from sealkit.backends.remote import parsed_schema
from sealkit.endpoint import Endpoint, EndpointOptions
from sealkit.errors import InvalidConfig, UnknownEditor
from sealkit.types import FinishReason, Prompt, Sampling, Usage

_SEEDS = 2**31


class EditorEntry(EndpointOptions):
    """[[editor]] of the file: who it is called here, which model it is there, and where.

    [[editor]]
    name = "outside"                 # as runs name it
    model = "some-model"             # as the endpoint names it
    url = "https://host/v1"
    api_key_env = "OUTSIDE_API_KEY"  # or api_key_file
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    model: str = Field(min_length=1)
    seeds: bool = Field(True, description="Whether the endpoint takes `seed`.")


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    editor: tuple[EditorEntry, ...] = ()


class Editors:
    """The outside editors of this service, by name."""

    def __init__(self, entries: tuple[EditorEntry, ...]) -> None:
        """Raises InvalidConfig where a key is not there."""
        self._entries = {entry.name: entry for entry in entries}
        self._endpoints = {entry.name: Endpoint(entry) for entry in entries}

    @property
    def names(self) -> list[str]:
        """Sorted."""
        return sorted(self._entries)

    async def close(self) -> None:
        """Closes the connections."""
        for endpoint in self._endpoints.values():
            await endpoint.close()

    async def write(self, name: str, prompt: Prompt, sampling: Sampling) -> Generation:
        """One completion by an outside editor. `device_seconds` are 0: the device is not ours. Raises UnknownEditor,
        and what an Endpoint raises."""
        entry = self._entries.get(name)
        if entry is None:
            known = ", ".join(self.names) or "none"
            raise UnknownEditor(f"no outside editor is named {name!r}; there are: {known}", metadata={"editor": name})
        began = time.perf_counter()
        said = await self._endpoints[name].chat(chat_request(entry, prompt, sampling))
        return Generation(
            text=said.text,
            finish_reason=FinishReason.LENGTH if said.cut else FinishReason.STOP,
            usage=Usage(
                prompt_tokens=said.prompt_tokens,
                completion_tokens=said.completion_tokens,
                wall_seconds=time.perf_counter() - began,
            ),
        )


def chat_request(entry: EditorEntry, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """The body of `POST /chat/completions`: shots are turns of their own."""
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    for shot in prompt.shots:
        messages += [{"role": "user", "content": shot.user}, {"role": "assistant", "content": shot.assistant}]
    messages.append({"role": "user", "content": prompt.user})
    body: dict[str, Any] = {
        "model": entry.model,
        "messages": messages,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if entry.seeds:
        body["seed"] = sampling.seed % _SEEDS
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.json_schema:
        schema = {"name": "completion", "schema": parsed_schema(sampling.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def read_editors(file: str) -> Editors:
    """The editors that a file lists; none where no file is named. Raises InvalidConfig naming what is wrong."""
    if not file:
        return Editors(())
    try:
        entries = _File.model_validate(tomllib.loads(Path(file).read_text(encoding="utf-8"))).editor
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidConfig(f"editors file {file} cannot be read: {error}") from error
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InvalidConfig(f"editors file {file}: {faults}") from error
    names = [entry.name for entry in entries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InvalidConfig(f"editors file {file}: {', '.join(sorted(twice))} comes twice")
    return Editors(entries)
