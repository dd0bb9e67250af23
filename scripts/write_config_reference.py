"""Writes docs/config.md, every key of a run's config, from sealkit/config.py: `python -m scripts.write_config_reference
[--check]`; with --check it only says whether they differ."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from enum import Enum
from pathlib import Path
from textwrap import dedent
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from deploy.generated import settle
from sealkit.config import RunConfig, TokenPrice
from sealkit.types import LoraConfig, Optimisation, Sampling

TARGET = Path(__file__).parents[1] / "docs/config.md"
_HEAD = """\
# Every key of a config

Made by `python -m scripts.write_config_reference` from `sealkit/config.py`; change that. A config is a TOML file (see
`configs/`); what it leaves out has the default, and a key that does not exist is refused. `--set key=value` changes one
for one run: `--set editor.k=3`. A table that is given in part, such as `sampling = { temperature = 0.7 }`, has the
section's defaults for the rest. The run keeps its config whole.
"""
_SHARED: dict[type[BaseModel], str] = {Sampling: "sampling", LoraConfig: "lora", Optimisation: "optimisation"}
"""Tables that several sections hold; their defaults are the section's."""
_NOT_SET = {(Sampling, "seed"), (Sampling, "json_schema")}
"""Given by the run itself."""


def render() -> str:
    """The page."""
    sections = {name: field for name, field in RunConfig.model_fields.items() if _model(field)}
    parts = [_HEAD, _table("A run", RunConfig, [name for name in RunConfig.model_fields if name not in sections])]
    for name, field in sections.items():
        model = _model(field)
        assert model is not None
        parts.append(_table(f"[{name}]", model, list(model.model_fields)))
        for key, inner in model.model_fields.items():
            if (table := _model(inner)) and table not in _SHARED:
                parts.append(_table(f"[{name}.{key}]", table, list(table.model_fields)))
    parts.append(_table("[cost.editors.NAME]", TokenPrice, list(TokenPrice.model_fields)))
    for model, name in _SHARED.items():
        keys = [key for key in model.model_fields if (model, key) not in _NOT_SET]
        parts.append(_table(f"{name}, wherever it stands", model, keys))
    return "\n".join(parts)


def _table(title: str, model: type[BaseModel], keys: list[str]) -> str:
    told = explanations(model)
    about = inspect.cleandoc(model.__doc__ or "") if model is not RunConfig else ""
    lines = [f"## {title}\n", *([_line(about) + "\n"] if about else []), "| key | default | |", "|---|---|---|"]
    for key in keys:
        field = model.model_fields[key]
        shared = _SHARED.get(field.annotation) if isinstance(field.annotation, type) else None
        meaning = told.get(key) or (f"See [{shared}](#{shared}-wherever-it-stands)." if shared else "")
        lines.append(f"| `{key}` | {_default(field)} | {meaning} |")
    return "\n".join([*lines, ""])


def explanations(model: type[BaseModel]) -> dict[str, str]:
    """The docstring under each field, on one line."""
    (tree,) = ast.parse(dedent(inspect.getsource(model))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = _line(ast.literal_eval(text.value))
    return found


def _line(text: str) -> str:
    return " ".join(text.split()).replace("||", "‖").replace("|", "\\|")


def _model(field: FieldInfo) -> type[BaseModel] | None:
    """The table that a field holds; None where it holds a plain value."""
    table = field.annotation
    return table if isinstance(table, type) and issubclass(table, BaseModel) else None


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        given = {key: getattr(value, key) for key in type(value).model_fields if key in value.model_fields_set}
        return f"`{{ {', '.join(f'{key} = {_toml(one)}' for key, one in given.items())} }}`"
    return f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def main(arguments: list[str]) -> int:
    """Writes the page, or with `--check` says whether it is as it should be; the exit code."""
    return settle({TARGET: render()}, arguments, command="python -m scripts.write_config_reference")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
