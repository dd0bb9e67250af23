"""Writes a version as a folder for other programs: in PEFT's format, or merged into the base model; with a model card.
A routed version is a folder of folders, one for each passage, and `routes.json`, which says which is which."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seal_cli.console import share
from sealkit.errors import FailedPrecondition, InvalidInput

if TYPE_CHECKING:
    from sealkit.reports import Lineage
    from sealkit.store import AdapterStore

_LICENSE = re.compile(r"^license:\s*(\S+)", re.MULTILINE)
_PLAIN = "A LoRA adapter in PEFT's format, trained on the documents below."
_ROUTED = (
    "LoRA adapters in PEFT's format, trained on the documents below: one in each folder for one passage each "
    "(`routes.json`). A prompt is for the adapter of the passage that it is about, and else for the base model."
)
_MERGED = "The base model with a LoRA adapter merged into it, trained on the documents below."
_LICENSE_FILES = ("LICENSE", "LICENSE.txt", "LICENSE.md")


def export_version(found: Lineage, folder: Path, *, store: str, base: Path | None, merged: bool, data: Path) -> None:
    """Writes the version to `folder`, wholly or not at all. Raises InvalidInput if the folder exists;
    FailedPrecondition if the version is the base model itself, or the base model is needed and not found;
    AdapterNotFound, AdapterCorrupt."""
    if folder.exists():
        raise InvalidInput(f"{folder} exists already; name a folder that does not")
    if found.version.adapter is None:
        raise FailedPrecondition(f"{found.version.name} is the base model itself, so there is no adapter to export")
    try:
        from sealkit.routing import ROUTES_FILE, refuse_routed
    except ImportError as error:
        raise _needs_extra(error) from error

    adapters = _opened(store, data)
    files = adapters.fetch(found.version.adapter.digest)
    routed = ROUTES_FILE in files
    if merged:
        refuse_routed(files)
    model = base or _base_of(data)
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".export-") as scratch:
        made = Path(scratch, "adapter")
        config = _write_routed(made, files, adapters) if routed else _write(made, files)
        if merged:
            made = _merged(made, model, Path(scratch, "merged"), found.base_model)
        kind = _ROUTED if routed else _MERGED if merged else _PLAIN
        (made / "README.md").write_text(model_card(found, config, _license(model), kind), encoding="utf-8")
        shutil.move(made, folder)


def _write(folder: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Writes an adapter's files; returns its config."""
    folder.mkdir(parents=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    return dict(json.loads(files["adapter_config.json"]))


def _write_routed(folder: Path, files: Mapping[str, bytes], adapters: AdapterStore) -> dict[str, Any]:
    """Writes the adapters of all routes, and which passage each is of; returns the config of one. Raises
    AdapterNotFound, AdapterCorrupt."""
    from sealkit.routing import ROUTES_FILE, load_routes

    listed, config = [], dict[str, Any]()
    for number, route in enumerate(load_routes(files), start=1):
        name = f"passage-{number:03}"
        config = _write(folder / name, adapters.fetch(route.adapter.digest))
        listed.append({"folder": name, "digest": route.adapter.digest, "passage": route.text})
    text = json.dumps(listed, ensure_ascii=False, indent=1)
    (folder / ROUTES_FILE).write_text(text + "\n", encoding="utf-8")
    return config


def model_card(found: Lineage, config: Mapping[str, Any], license: str, kind: str) -> str:
    """The model card: what it is (`kind`), what it was trained on, what was measured, and the licence of the base
    model."""
    return "\n".join(_card(found, str(config.get("base_model_name_or_path", "")), license, kind)) + "\n"


def _card(found: Lineage, base: str, license: str, kind: str) -> Iterator[str]:
    version = found.version
    yield from ("---", *([f"license: {license}"] if license else []), f"base_model: {json.dumps(base)}")
    yield from ([] if kind == _MERGED else ["library_name: peft"])
    yield from ("---", "", f"# {version.name.removeprefix('policies/')}", "")
    yield f"{kind} Base model: {base}, with the digest `{found.base_model}`."
    said = license or "not stated in its folder; look it up before you pass this on"
    yield from ("", f"Licence of the base model: {said}. The documents may have terms of their own.", "")
    yield from ("## Data", "", "| document | SHA-256 | questions | accuracy before → after |", "|---|---|---|---|")
    for document in found.documents:
        generated = " (generated)" if any(query.generated for query in document.queries) else ""
        accuracies = f"{share(document.accuracy_before)} → {share(document.accuracy_after)}"
        name = document.name.replace("|", "\\|")
        yield f"| {name} | `{document.digest}` | {len(document.queries)}{generated} | {accuracies} |"
    yield from (
        "",
        "Accuracies are on questions about the document itself, asked without it, when it was learned. Generated "
        "questions and gold answers were written by models or are blanks in the text; only those were kept that the "
        "base model does not know.",
        "",
        "## What it forgot",
        "",
        f"{version.gate_reason or 'not measured'}.",
    )
    if version.divergence is not None:
        yield f"KL to the base model on a fixed text: {version.divergence.on_fixed_text:.4f} nats a token."
    if version.adapter is not None:
        yield from ("", f"Adapter: `{version.adapter.digest}`.")


def _needs_extra(error: ImportError) -> FailedPrecondition:
    return FailedPrecondition(f"the adapter store needs {error.name}: pip install 'seal-suite[controller]'")


def _opened(store: str, data: Path) -> AdapterStore:
    from seal_cli.options import embedded_store

    try:
        from sealkit.store import AdapterStore
    except ImportError as error:
        raise _needs_extra(error) from error
    return AdapterStore(store or str(embedded_store(data)))


def _base_of(data: Path) -> Path | None:
    """Folder of the model of the stack in `data`, if it is one."""
    from seal_cli.stack.layout import Layout

    state = Layout.at(data).read_state()
    return Path(state.model) if state and Path(state.model).is_dir() else None


def _license(model: Path | None) -> str:
    """The licence that the base model's own card names, or its licence's file."""
    if model is None:
        return ""
    card = model / "README.md"
    if card.is_file() and (named := _LICENSE.search(card.read_text(encoding="utf-8", errors="replace"))):
        return named[1].strip("\"'")
    return "other" if any((model / name).is_file() for name in _LICENSE_FILES) else ""


def _merged(adapter: Path, model: Path | None, target: Path, digest: str) -> Path:
    """The folder of the merged model. In a process of its own, because only model services need torch."""
    if model is None:
        raise FailedPrecondition("merging needs the folder of the base model; name it with --base")
    command = [sys.executable, "-m", "sealkit.backends.merged", str(model), str(adapter), str(target), digest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise FailedPrecondition(f"the adapter could not be merged into {model}: {last[0]}")
    return target
