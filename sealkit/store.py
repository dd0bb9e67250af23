"""The adapter store: content-checked folders of LoRA weights under any fsspec URL.

Layout: `<url>/adapters/<digest[:2]>/<digest>/{adapter_model.safetensors,adapter_config.json,manifest.json}`, in PEFT's
own format. An adapter exists when its manifest does; the manifest holds the SHA-256 of every other file, and they are
checked at every load. Calls block: services make them off the event loop.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from sealkit.errors import AdapterCorrupt, AdapterMismatch, AdapterNotFound, InvalidConfig, InvalidInput, Unavailable
from sealkit.types import AdapterRef

MANIFEST = "manifest.json"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_STALE_SECONDS = 24 * 3600
_LARGEST_MANIFEST = 16 << 20


class AdapterStore:
    """Adapters by digest. Writing is atomic: a reader sees a whole adapter or none.

    Raises InvalidConfig on a URL that fsspec cannot open, Unavailable if the storage fails.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._fs, root = open_filesystem(url)
        except (ValueError, ImportError) as error:
            raise InvalidConfig(f"adapter store {url!r} cannot be opened: {error}") from error
        self._adapters = f"{root.rstrip('/')}/adapters"
        self._local = isinstance(self._fs, LocalFileSystem)
        self.folder = Path(root) if self._local else None
        """The store's path, if it is a folder on this machine."""
        if self._local:
            self._sweep()

    def put(self, digest: str, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> AdapterRef:
        """Stores an adapter; an existing digest is left unchanged, but its age restarts.

        `manifest` is extended by the store's own keys (`digest`, `files`).
        """
        folder = self._folder(digest)
        for name in files:
            if name == MANIFEST or not _FILE_NAME.fullmatch(name):
                raise InvalidInput(f"{name!r} is not a valid name of an adapter's file")
        if self.has(digest):
            self._renew(digest)
        else:
            sums = {name: {"sha256": _sha256(data), "bytes": len(data)} for name, data in files.items()}
            note = json.dumps({**manifest, "digest": digest, "files": sums}, indent=1, sort_keys=True).encode()
            with self._storage():
                # The manifest is written last: without rename, it makes the adapter exist.
                self._write(folder, {**files, MANIFEST: note})
        return AdapterRef(digest=digest)

    def has(self, digest: str) -> bool:
        """Whether the adapter exists; only `fetch` checks its bytes."""
        with self._storage():
            return bool(self._fs.exists(f"{self._folder(digest)}/{MANIFEST}"))

    def manifest(self, digest: str) -> dict[str, Any]:
        """The manifest. Raises AdapterNotFound, AdapterCorrupt, AdapterMismatch if it belongs to another adapter."""
        raw = self._read(digest, MANIFEST, limit=_LARGEST_MANIFEST)
        if raw is None:
            raise self._missing(digest)
        try:
            manifest = json.loads(raw)
            named = str(manifest["digest"])
            whole = _DIGEST.fullmatch(named) and all(
                _FILE_NAME.fullmatch(name) and f["sha256"] and type(f["bytes"]) is int
                for name, f in manifest["files"].items()
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            whole = False
        if not whole:
            raise self._corrupt(digest, MANIFEST, f"a manifest of {digest}", f"{len(raw)} bytes that are not one")
        if named != digest:
            raise AdapterMismatch(
                f"the folder of adapter {digest} contains adapter {named}. Delete {self._folder(digest)} and train "
                "it again, or restore a copy",
                metadata={"digest": digest, "expected": digest, "found": named},
            )
        return dict(manifest)

    def fetch(self, digest: str) -> dict[str, bytes]:
        """The adapter's files, each checked against the manifest. Raises what `manifest` raises, and AdapterCorrupt."""
        files = {}
        for name, expected in self.manifest(digest)["files"].items():
            data = self._read(digest, name, limit=expected["bytes"])
            if data is None:
                raise self._corrupt(digest, name, f"sha256 {expected['sha256']}", "no such file")
            if (found := _sha256(data)) != expected["sha256"]:
                raise self._corrupt(digest, name, f"sha256 {expected['sha256']}", f"sha256 {found}, {len(data)} bytes")
            files[name] = data
        return files

    def list(self) -> list[str]:
        """Digests of the stored adapters, in order."""
        with self._storage():
            found = [path.split("/")[-2] for path in self._fs.glob(f"{self._adapters}/*/*/{MANIFEST}")]
        return sorted(digest for digest in found if _DIGEST.fullmatch(digest))

    def age_seconds(self, digest: str) -> float:
        """Seconds since the adapter was last stored. Raises AdapterNotFound."""
        with self._storage():
            try:
                put = self._fs.modified(f"{self._folder(digest)}/{MANIFEST}")
            except FileNotFoundError as error:
                raise self._missing(digest) from error
        return float(time.time() - put.timestamp())

    def delete(self, digest: str) -> None:
        """Removes an adapter. Raises AdapterNotFound."""
        if not self.has(digest):
            raise self._missing(digest)
        folder = self._folder(digest)
        with self._storage():
            self._fs.rm_file(f"{folder}/{MANIFEST}")
            self._fs.rm(folder, recursive=True)

    def local_path(self, digest: str) -> Path | None:
        """The adapter's folder, if the store is a folder on this machine and has it."""
        return Path(self._folder(digest)) if self._local and self.has(digest) else None

    def _folder(self, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise InvalidInput(f"{digest!r} is not a digest: expected 64 hexadecimal digits")
        return f"{self._adapters}/{digest[:2]}/{digest}"

    def _read(self, digest: str, name: str, *, limit: int) -> bytes | None:
        """A file of the adapter's folder. Raises AdapterCorrupt on a link, a device, and a file larger than `limit`: a
        writer of the store must not control what else is read, or how much."""
        path = f"{self._folder(digest)}/{name}"
        with self._storage():
            try:
                info = self._fs.info(path)
                if info["type"] != "file" or info.get("islink") or self._leads_out(path):
                    raise self._corrupt(digest, name, "a file", "a link or not a file")
                if info["size"] > limit:
                    raise self._corrupt(digest, name, f"at most {limit} bytes", f"{info['size']} bytes")
                return bytes(self._fs.cat_file(path))
            except FileNotFoundError:
                return None

    def _leads_out(self, path: str) -> bool:
        return self._local and not Path(path).resolve().is_relative_to(Path(self._adapters).resolve())

    def _renew(self, digest: str) -> None:
        """Sets the time that `age_seconds` counts from."""
        manifest = f"{self._folder(digest)}/{MANIFEST}"
        with self._storage():
            if self._local:
                os.utime(manifest)
            else:
                self._fs.pipe_file(manifest, self._fs.cat_file(manifest))

    def _write(self, folder: str, files: Mapping[str, bytes]) -> None:
        if self._local:
            _write_folder(Path(folder), files, scratch=self._scratch / uuid.uuid4().hex)
            return
        self._fs.makedirs(folder, exist_ok=True)
        for name, data in files.items():
            self._fs.pipe_file(f"{folder}/{name}", data)

    @property
    def _scratch(self) -> Path:
        return Path(self._adapters, ".tmp")

    def _sweep(self) -> None:
        """Removes temporary files of writers that died at least a day ago."""
        for left in self._scratch.glob("*"):
            with suppress(FileNotFoundError):  # a live writer has just renamed it
                if left.stat().st_mtime < time.time() - _STALE_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)

    @contextmanager
    def _storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Unavailable(
                f"adapter store {self.url}: {error.strerror or error}. Check that it is reachable and writable, "
                "and that it has free space"
            ) from error

    def _missing(self, digest: str) -> AdapterNotFound:
        return AdapterNotFound(f"adapter {digest} is not in the store {self.url}", metadata={"digest": digest})

    def _corrupt(self, digest: str, name: str, expected: str, found: str) -> AdapterCorrupt:
        return AdapterCorrupt(
            f"adapter {digest}: {name} should be {expected}, but is {found}. Delete {self._folder(digest)} and train "
            "it again, or restore a copy",
            metadata={"digest": digest, "file": name},
        )


def open_filesystem(url: str) -> tuple[Any, str]:
    """fsspec's file system of a URL, and the path in it. An absolute path is taken as it is: fsspec would cut it off at
    `::`. Raises ValueError, ImportError."""
    # Another process may store an adapter at any time, so a listing must not be cached.
    if Path(url).is_absolute():
        return LocalFileSystem(use_listings_cache=False), str(Path(url))
    files, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return files, str(root)


def _write_folder(folder: Path, files: Mapping[str, bytes], *, scratch: Path) -> None:
    """Writes a folder atomically: to `scratch`, flushed to disk, then renamed. An existing folder is kept."""
    scratch.mkdir(parents=True)
    try:
        for name, data in files.items():
            with (scratch / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not (folder / MANIFEST).exists():
            shutil.rmtree(folder)  # the rest of an interrupted deletion
        try:
            scratch.rename(folder)
        except OSError:
            if not (folder / MANIFEST).exists():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
