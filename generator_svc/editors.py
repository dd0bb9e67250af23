"""Outside editors: models at OpenAI-compatible endpoints that write self-edits instead of the policy.

The operator lists them in a file (`sealkit.editors`); runs name them in `editor.arms`.
"""

from __future__ import annotations

import time
from typing import Any

from sealkit.backends.base import Generation
from sealkit.backends.remote import SEEDS, options
from sealkit.editors import EditorEntry, read_entries
from sealkit.endpoint import Endpoint
from sealkit.errors import UnknownEditor
from sealkit.types import FinishReason, Prompt, Sampling, Usage


class Editors:
    """The outside editors of this service, by name."""

    def __init__(self, entries: tuple[EditorEntry, ...]) -> None:
        """Raises InvalidConfig if a key is missing."""
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
        """One completion by an outside editor. `device_seconds` is 0: the device is not ours. Raises UnknownEditor, and
        what an Endpoint raises."""
        entry = self._entries.get(name)
        if entry is None:
            known = ", ".join(self.names) or "none"
            raise UnknownEditor(f"no outside editor is named {name!r}; there are: {known}", metadata={"editor": name})
        began = time.perf_counter()
        said = await self._endpoints[name].chat(chat_request(entry, prompt, sampling))
        return Generation(
            text=said.text,
            reasoning=said.reasoning,
            finish_reason=FinishReason.LENGTH if said.cut else FinishReason.STOP,
            usage=Usage(
                prompt_tokens=said.prompt_tokens,
                completion_tokens=said.completion_tokens,
                wall_seconds=time.perf_counter() - began,
            ),
        )


def chat_request(entry: EditorEntry, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
    """The body of `POST /chat/completions`; each shot is one user turn and one assistant turn."""
    messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
    for shot in prompt.shots:
        messages += [{"role": "user", "content": shot.user}, {"role": "assistant", "content": shot.assistant}]
    messages.append({"role": "user", "content": prompt.user})
    body: dict[str, Any] = {
        "model": entry.model,
        "messages": messages,
        "max_tokens": sampling.max_tokens,
        **options(sampling),
    }
    if entry.chat_template_kwargs:
        body["chat_template_kwargs"] = entry.chat_template_kwargs
    if entry.seeds:
        body["seed"] = sampling.seed % SEEDS
    return body


def read_editors(file: str) -> Editors:
    """The editors that the file lists; none without a file. Raises InvalidConfig with the faulty entry."""
    return Editors(read_entries(file))
