"""What a caller says never names what is read, run or written: no path, no link, no module, no pickle."""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from safetensors.torch import load_file
from seal.controller.v1 import controller_pb2 as pb

from controller.accept import accept
from sealkit.backends.lora import CONFIG_FILE, WEIGHTS_FILE, LoraWeights, dump_adapter, load_adapter
from sealkit.backends.models import ModelSettings, load_model
from sealkit.errors import AdapterCorrupt, InvalidInput, InvalidModel, NotFound
from sealkit.rpc.struct import struct_to_pb
from sealkit.store import MANIFEST, AdapterStore
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import LoraConfig
from tests.security.calls import SERVICES, call
from tests.security.harness import ROOT, Harness

DIGEST = "ab" * 32
PASSAGE = {"title": "t", "context": "c", "questions": [{"question": "q", "answer": "a"}]}
TRICKS = (
    "../../etc/passwd", "/etc/passwd", "..", ".", "", "file:///etc/passwd", "ab" * 31 + "..", "AB" * 32,
    "ab" * 32 + "\n", "ab" * 32 + "\0", "ab" * 32 + "/../x", "~root", "s3://bucket/x", "ａｂ" * 32, "ab" * 33,
)  # fmt: skip


def stored(store: AdapterStore, **files: bytes) -> Path:
    weights = LoraWeights(
        LoraConfig(rank=2, alpha=4, target_modules=("q",)), {"q": (torch.ones(2, 3), torch.ones(4, 2))}
    )
    store.put(DIGEST, {**dump_adapter(weights, "tiny"), **files}, {})
    folder = store.local_path(DIGEST)
    assert folder is not None
    return folder


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(str(tmp_path / "store"))


@pytest.mark.parametrize("digest", TRICKS)
def test_only_a_digest_names_an_adapter(store: AdapterStore, digest: str) -> None:
    for change in (store.has, store.fetch, store.manifest, store.delete, store.local_path, store.age_seconds):
        with pytest.raises(InvalidInput, match="not a digest"):
            change(digest)
    with pytest.raises(InvalidInput):
        store.put(digest, {"x": b""}, {})


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", "", ".hidden", "a\0b", MANIFEST])
def test_an_adapters_file_has_a_plain_name(store: AdapterStore, name: str) -> None:
    with pytest.raises(InvalidInput):
        store.put(DIGEST, {name: b""}, {})


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../secret", "a/../../b", "..", "x\0y", ""])
def test_a_manifest_names_no_file_outside_its_folder(store: AdapterStore, name: str) -> None:
    folder = stored(store)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = manifest["files"][WEIGHTS_FILE]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(AdapterCorrupt):
        store.fetch(DIGEST)


@pytest.mark.parametrize("target", ["secret", "/dev/zero", "pipe"])
def test_a_link_or_device_in_the_store_is_not_read(store: AdapterStore, tmp_path: Path, target: str) -> None:
    folder = stored(store)
    if target == "pipe":
        os.mkfifo(tmp_path / "pipe")
    elif target == "secret":
        (tmp_path / "secret").write_bytes((folder / WEIGHTS_FILE).read_bytes())  # even with the right content
    (folder / WEIGHTS_FILE).unlink()
    (folder / WEIGHTS_FILE).symlink_to(tmp_path / target if target != "/dev/zero" else target)
    with pytest.raises(AdapterCorrupt, match="link"):
        store.fetch(DIGEST)


def test_a_linked_folder_in_the_store_is_not_read(store: AdapterStore, tmp_path: Path) -> None:
    folder = stored(store)
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterCorrupt):
        store.fetch(DIGEST)


def test_a_file_larger_than_its_manifest_says_is_not_read(store: AdapterStore) -> None:
    folder = stored(store)
    with (folder / WEIGHTS_FILE).open("ab") as file:
        file.truncate(1 << 40)  # a terabyte, of holes
    with pytest.raises(AdapterCorrupt, match=r"at most .* bytes"):
        store.fetch(DIGEST)


@pytest.mark.parametrize("name", ["adapter_model.bin", "training_args.pt", "x.pkl", "model.pth", "a.ckpt"])
def test_a_pickled_adapter_is_refused_by_name(store: AdapterStore, name: str) -> None:
    stored(store, **{name: pickle.dumps(1)})
    with pytest.raises(AdapterCorrupt, match=r"pickle.*safetensors"):
        load_adapter(store.fetch(DIGEST))


def test_an_adapter_with_a_pickle_alone_is_refused(store: AdapterStore) -> None:
    store.put(DIGEST, {CONFIG_FILE: b"{}", "adapter_model.bin": pickle.dumps(1)}, {})
    with pytest.raises(AdapterCorrupt, match="pickle"):
        load_adapter(store.fetch(DIGEST))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_of_no_numbers_is_refused(value: float) -> None:
    shape = LoraConfig(rank=2, alpha=4, target_modules=("q",))
    bad = LoraWeights(shape, {"q": (torch.full((2, 3), value), torch.ones(4, 2))})
    with pytest.raises(AdapterCorrupt, match="finite"):
        load_adapter(dump_adapter(bad, "tiny"))


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self._mark}",)


def _pickle_alone(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(mark)))


def _index_to_pickle(folder: Path, mark: Path) -> None:
    (folder / "evil.bin").write_bytes(pickle.dumps(Evil(mark)))
    _index(folder, "evil.bin")


def _index_outside(folder: Path, mark: Path) -> None:
    _index(folder, "../other.safetensors")


def _index(folder: Path, part: str) -> None:
    keys = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder / "left.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(keys, part)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _own_code(folder: Path, mark: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')")


def _adapter_inside(folder: Path, mark: Path) -> None:
    adapter = {"peft_type": "LORA", "base_model_name_or_path": str(folder), "target_modules": ["q_proj"], "r": 2}
    (folder / "adapter_config.json").write_text(json.dumps(adapter))
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Evil(mark)))


def _huge_header(folder: Path, mark: Path) -> None:
    (folder / "model.safetensors").write_bytes((2**62).to_bytes(8, "little") + b"{}")


@pytest.mark.parametrize(
    "spoil", [_pickle_alone, _index_to_pickle, _index_outside, _own_code, _adapter_inside, _huge_header]
)
def test_a_model_folder_runs_no_code_and_reads_no_pickle(tmp_path: Path, spoil: Callable[[Path, Path], None]) -> None:
    folder = make_tiny_model(tmp_path / "model", hidden=16, layers=1, heads=2, kv_heads=1)
    spoil(folder, tmp_path / "mark")
    with pytest.raises(InvalidModel):
        load_model(ModelSettings(model=str(folder), device="cpu"))
    assert not (tmp_path / "mark").exists()


def test_nothing_in_the_code_trusts_remote_code_or_unpickles() -> None:
    code = [p for room in ("sealkit", "trainer_svc", "generator_svc", "evaluator_svc", "controller", "seal_cli")
            for p in (ROOT / room).rglob("*.py")]  # fmt: skip
    assert len(code) > 100
    forbidden = re.compile(
        r"trust_remote_code=True|import pickle|(?<!safetensors\.)torch\.load\(|yaml\.load\(|(?<![.\w])(?:eval|exec)\("
    )
    for path in code:
        assert not (found := forbidden.search(path.read_text())), f"{path}: {found}"


@pytest.mark.parametrize(
    "name", ["os:system", "subprocess:run", "sealkit.store:AdapterStore", "../x:y", "/tmp/x.py:y", "evil"]
)
def test_a_caller_chooses_no_module(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(NotFound, match="SEAL_CONTROLLER_DOMAIN_PLUGINS"):
        accept(
            request_id="r", display_name="", config={"domain": {"name": name}}, records=[PASSAGE], retention=(),
            plugins=("tests.unit.controller.controller_fakes:TinyDomain",),
        )  # fmt: skip
    assert not {module for module in set(sys.modules) - before if module.startswith(("evil", "subprocess"))}


_opened: list[str] = []
_listening = False


def _listen(event: str, args: tuple[Any, ...]) -> None:
    if _listening and event == "open":
        _opened.append(str(args[0]))


def test_no_path_in_a_config_is_opened_by_the_controller(tmp_path: Path) -> None:
    """Whatever the config calls a path is the client's: the controller gets records."""
    global _listening
    (tmp_path / "secret").write_text("x")
    paths = [str(tmp_path / "secret"), f"file://{tmp_path}/secret", "../" * 20 + str(tmp_path / "secret")[1:]]
    sys.addaudithook(_listen)
    for path in paths:
        config = {"name": path, "dataset": {"path": path, "retention_path": path, "retention_tasks": [path, "x.yaml"]}}
        _listening = True
        try:
            accept(
                request_id="r",
                display_name=path,
                config=config,
                records=[{**PASSAGE, "title": path}],
                retention=(),
                plugins=(),
            )
        finally:
            _listening = False
    assert not [name for name in _opened if "secret" in name or name.endswith(".yaml")]


@pytest.mark.parametrize("kind", ["judge", "start_policy", "arms"])
@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\0b", "model/../x"])
def test_a_name_is_looked_up_and_never_a_path(services: Harness, kind: str, name: str) -> None:
    config = {
        "judge": {"evaluation": {"judge": name}},
        "start_policy": {"start_policy": name},
        "arms": {"editor": {"arms": [name]}},
    }
    request = pb.CreateRunRequest(request_id=name, config=struct_to_pb(config[kind]), records=[struct_to_pb(PASSAGE)])
    service = SERVICES["controller"]
    with grpc.insecure_channel(services.addresses["controller"]) as channel:
        code, _ = call(channel, service, service.methods_by_name["CreateRun"], request.SerializeToString())
    assert code in ("NOT_FOUND", "INVALID_ARGUMENT")
