"""Each part runs with what its extra installs: no more than that is imported, and never torch without asking."""

import json
import subprocess
import sys
from importlib import metadata

import pytest

from scripts.write_constraints import PROJECT, closure

PARTS = {
    "the client": ((), ["sealkit.client"]),
    "the command line": (
        (),
        ["seal_cli.main", "seal_cli.follow", "seal_cli.report", "seal_cli.recipe", "sealkit.report_page.page"],
    ),
    "the controller": (("controller",), ["controller.__main__", "controller.app", "controller.db.migrate"]),
    "the HTTP service": (("http",), ["gateway.__main__"]),
    "the model services": (("models",), [f"{name}_svc.__main__" for name in ("generator", "trainer", "evaluator")]),
    "the stack": (("embedded",), ["seal_cli.stack.supervisor", "seal_cli.stack.model"]),
}

OPTIONAL = {
    "attr", "grpc_tools", "charset_normalizer", "PIL", "opentelemetry", "psutil", "sniffio", "xxhash", "zstandard"
}  # fmt: skip
"""What others import only where it happens to be: attrs by rich, protoc by grpc, a Fortran reader by numpy, Pillow by
transformers, OpenTelemetry and xxhash by redis, psutil by OpenTelemetry, sniffio by anyio, zstandard by httpx."""


def imported(modules: list[str]) -> set[str]:
    """Top-level names that importing `modules` in a fresh process brings in."""
    code = (
        f"import json, sys, {', '.join(modules)}; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_only_what_its_extra_installs(part: str) -> None:
    extras, modules = PARTS[part]
    allowed = {PROJECT, "pip", "setuptools", *closure(PROJECT, extras)}
    owners = metadata.packages_distributions()
    foreign = {
        name: owners[name]
        for name in imported(modules)
        if name in owners.keys() - OPTIONAL
        and not allowed & {owner.lower().replace("_", "-").replace(".", "-") for owner in owners[name]}
    }
    assert foreign == {}


@pytest.mark.parametrize("extras", [(), ("controller",), ("http",)], ids=["client", "controller", "http"])
def test_torch_is_not_pulled_in(extras: tuple[str, ...]) -> None:
    assert not {"torch", "transformers", "peft"} & closure(PROJECT, extras).keys()
