"""The adapter store: whole or not there, and never wrong bytes."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import pytest

from sealkit.errors import AdapterCorrupt, AdapterMismatch, AdapterNotFound, InvalidConfig, InvalidInput, Unavailable
from sealkit.store import MANIFEST, AdapterStore

DIGEST = hashlib.sha256(b"one").hexdigest()
FILES = {"adapter_model.safetensors": bytes(range(256)) * 40, "adapter_config.json": b'{"r": 4}'}


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> AdapterStore:
    return AdapterStore(str(tmp_path / "store") if request.param == "folder" else f"memory://{uuid.uuid4().hex}")


@pytest.fixture
def folder_store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(str(tmp_path / "store"))


def _folder(store: AdapterStore, digest: str = DIGEST) -> str:
    return f"{store._adapters}/{digest[:2]}/{digest}"


def test_put_and_fetch(store: AdapterStore) -> None:
    assert not store.has(DIGEST)
    ref = store.put(DIGEST, FILES, {"engine": "1"})
    assert store.has(DIGEST)
    assert store.fetch(DIGEST) == FILES
    assert store.list() == [DIGEST]
    manifest = store.manifest(DIGEST)
    assert manifest["engine"] == "1"
    assert manifest["files"]["adapter_config.json"]["sha256"] == hashlib.sha256(b'{"r": 4}').hexdigest()
    assert ref.digest == DIGEST
    fs, root = fsspec.core.url_to_fs(store.url)
    assert fs.cat_file(f"{root}/adapters/{DIGEST[:2]}/{DIGEST}/adapter_config.json") == b'{"r": 4}'


def test_putting_again_changes_nothing(store: AdapterStore) -> None:
    first = store.put(DIGEST, FILES, {"engine": "1"})
    assert store.put(DIGEST, {"adapter_config.json": b"other"}, {"engine": "2"}) == first
    assert store.fetch(DIGEST) == FILES
    assert store.manifest(DIGEST)["engine"] == "1"


def test_what_is_not_there_is_named(store: AdapterStore) -> None:
    for call in (store.fetch, store.manifest, store.delete):
        with pytest.raises(AdapterNotFound, match=DIGEST) as caught:
            call(DIGEST)
        assert caught.value.metadata["digest"] == DIGEST, "a rerun goes by it"


def test_delete(store: AdapterStore) -> None:
    store.put(DIGEST, FILES, {})
    store.delete(DIGEST)
    assert not store.has(DIGEST)
    assert store.list() == []
    store.put(DIGEST, FILES, {})
    assert store.fetch(DIGEST) == FILES


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("adapter_model.safetensors", lambda data: data[:-1]),
        ("adapter_model.safetensors", lambda data: bytes([data[0] ^ 1]) + data[1:]),
        ("adapter_config.json", lambda data: b""),
        ("manifest.json", lambda data: data[: len(data) // 2]),
        ("manifest.json", lambda data: b"[]"),
    ],
    ids=["truncated", "flipped bit", "emptied", "cut manifest", "other manifest"],
)
def test_damage_is_found(store: AdapterStore, name: str, damage: object) -> None:
    store.put(DIGEST, FILES, {})
    path = f"{_folder(store)}/{name}"
    good = store._fs.cat_file(path)
    store._fs.pipe_file(path, damage(good))  # type: ignore[operator]
    with pytest.raises(AdapterCorrupt) as caught:
        store.fetch(DIGEST)
    assert name in caught.value.message
    assert DIGEST in caught.value.message
    assert caught.value.metadata == {"digest": DIGEST, "file": name}


def test_the_folder_of_another_is_not_taken(store: AdapterStore) -> None:
    other = "0" * 64
    store.put(DIGEST, FILES, {})
    path = f"{_folder(store)}/manifest.json"
    store._fs.pipe_file(path, store._fs.cat_file(path).replace(DIGEST.encode(), other.encode()))
    with pytest.raises(AdapterMismatch, match=f"{DIGEST} contains adapter {other}"):
        store.fetch(DIGEST)


def test_damage_names_both_digests(store: AdapterStore) -> None:
    store.put(DIGEST, FILES, {})
    store._fs.pipe_file(f"{_folder(store)}/adapter_config.json", b"x")
    with pytest.raises(AdapterCorrupt) as caught:
        store.fetch(DIGEST)
    assert hashlib.sha256(b'{"r": 4}').hexdigest() in caught.value.message
    assert hashlib.sha256(b"x").hexdigest() in caught.value.message


def test_a_lost_file_is_found(store: AdapterStore) -> None:
    store.put(DIGEST, FILES, {})
    store._fs.rm_file(f"{_folder(store)}/adapter_config.json")
    with pytest.raises(AdapterCorrupt, match=r"adapter_config\.json.*no such file"):
        store.fetch(DIGEST)


def test_a_crash_before_the_rename_leaves_nothing_visible(
    folder_store: AdapterStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", die)
        with pytest.raises(Killed):
            folder_store.put(DIGEST, FILES, {})
    assert not folder_store.has(DIGEST)
    assert folder_store.list() == []
    assert not [p for p in (tmp_path / "store").rglob("*") if p.is_file()]
    folder_store.put(DIGEST, FILES, {})
    assert folder_store.fetch(DIGEST) == FILES


def test_a_crash_before_the_manifest_leaves_nothing_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    store = AdapterStore(f"memory://{uuid.uuid4().hex}")
    write = store._fs.pipe_file

    def fail_at_manifest(path: str, data: bytes) -> None:
        if path.endswith("manifest.json"):
            raise OSError("connection lost")
        write(path, data)

    monkeypatch.setattr(store._fs, "pipe_file", fail_at_manifest)
    with pytest.raises(Unavailable, match="connection lost"):
        store.put(DIGEST, FILES, {})
    assert not store.has(DIGEST)
    assert store.list() == []
    monkeypatch.undo()
    store.put(DIGEST, FILES, {})
    assert store.fetch(DIGEST) == FILES


def test_a_deletion_cut_short_does_not_block_the_digest(folder_store: AdapterStore) -> None:
    folder_store.put(DIGEST, FILES, {})
    Path(_folder(folder_store), "manifest.json").unlink()
    assert not folder_store.has(DIGEST)
    folder_store.put(DIGEST, FILES, {})
    assert folder_store.fetch(DIGEST) == FILES


def test_a_dead_writers_leftovers_are_cleared_later(folder_store: AdapterStore) -> None:
    old, fresh = folder_store._scratch / "old", folder_store._scratch / "fresh"
    for left in (old, fresh):
        left.mkdir(parents=True)
        (left / "adapter_model.safetensors").write_bytes(b"half")
    os.utime(old, (0, 0))
    AdapterStore(folder_store.url)
    assert not old.exists()
    assert fresh.exists()
    assert folder_store.list() == []


def test_writers_of_one_digest_do_not_disturb_each_other(folder_store: AdapterStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        refs = list(pool.map(lambda _: AdapterStore(folder_store.url).put(DIGEST, FILES, {}), range(32)))
    assert len(set(refs)) == 1
    assert folder_store.fetch(DIGEST) == FILES
    assert not list(folder_store._scratch.iterdir())


def test_local_path(folder_store: AdapterStore) -> None:
    assert folder_store.local_path(DIGEST) is None
    folder_store.put(DIGEST, FILES, {})
    path = folder_store.local_path(DIGEST)
    assert path is not None
    assert json.loads((path / "adapter_config.json").read_bytes()) == {"r": 4}
    memory = AdapterStore(f"memory://{uuid.uuid4().hex}")
    memory.put(DIGEST, FILES, {})
    assert memory.local_path(DIGEST) is None


@pytest.mark.parametrize("digest", ["", "../../etc", "A" * 64, DIGEST + "0"])
def test_only_digests_name_adapters(store: AdapterStore, digest: str) -> None:
    with pytest.raises(InvalidInput, match="digest"):
        store.fetch(digest)


@pytest.mark.parametrize("name", ["manifest.json", "../x", "a/b", ""])
def test_only_plain_names_are_files(store: AdapterStore, name: str) -> None:
    with pytest.raises(InvalidInput, match="name"):
        store.put(DIGEST, {name: b"x"}, {})
    assert not store.has(DIGEST)


def test_an_unknown_url_says_so() -> None:
    with pytest.raises(InvalidConfig, match="nowhere://x"):
        AdapterStore("nowhere://x")


def test_a_store_that_cannot_be_written_names_itself(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, not a folder")
    with pytest.raises(Unavailable, match=str(tmp_path / "store")):
        AdapterStore(str(tmp_path / "store")).put(DIGEST, FILES, {})


def test_putting_again_makes_an_adapter_new_again(store: AdapterStore) -> None:
    store.put(DIGEST, FILES, {"engine": "1"})
    manifest = f"{_folder(store)}/{MANIFEST}"
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    if store._local:
        os.utime(manifest, (long_ago.timestamp(), long_ago.timestamp()))
    else:
        store._fs.store[manifest].modified = long_ago
    assert store.age_seconds(DIGEST) > 365 * 86400
    store.put(DIGEST, FILES, {"engine": "1"})
    assert store.age_seconds(DIGEST) < 60
    assert store.fetch(DIGEST) == FILES
    store.delete(DIGEST)
    with pytest.raises(AdapterNotFound):
        store.age_seconds(DIGEST)
