"""A data folder works under every name, from every shell, and its socket is in nobody else's hands."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from controller.db.database import Database
from seal_cli.doctor.setup import read_settings
from seal_cli.stack import layout as layouts
from seal_cli.stack.layout import CONTROLLER, Layout
from seal_cli.stack.services import plan
from sealkit.errors import FailedPrecondition
from sealkit.stack_file import StackState


def test_a_folder_with_special_characters_holds_all_of_its_data(tmp_path: Path) -> None:
    folder = tmp_path / "a#b?c=d%41 %"
    layout = Layout.at(folder)
    layout.create()
    layout.write_state(StackState(model="m"))
    launch = next(one for one in plan(layout, StackState(model="m"), 0) if one.name == CONTROLLER)
    database = Database(launch.env["SEAL_CONTROLLER_DATABASE_URL"])

    async def use() -> None:
        await database.start()
        await database.close()

    asyncio.run(use())
    assert layout.database.is_file()
    assert database.folder == folder
    assert list(tmp_path.iterdir()) == [folder], "nothing beside it"
    assert read_settings(folder).get("CONTROLLER_DATABASE_URL") == launch.env["SEAL_CONTROLLER_DATABASE_URL"]
    assert read_settings(folder).get("CONTROLLER_REDIS_URL") == launch.env["SEAL_CONTROLLER_REDIS_URL"]


def test_the_socket_of_a_long_path_is_found_from_a_shell_with_another_tmpdir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep/" * 30)
    first = Layout.at(deep).socket
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert Layout.at(deep).socket == first
    assert not first.is_relative_to(tmp_path)


def test_a_folder_in_tmp_that_another_user_may_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "_SHORT", tmp_path / "tmp")
    layout = Layout.at(tmp_path / ("deep/" * 30))
    layout.create()
    folder = layout.socket.parent
    assert folder.stat().st_mode & 0o777 == 0o700

    for mode in (0o770, 0o701, 0o777):
        folder.chmod(mode)
        with pytest.raises(FailedPrecondition, match="mode 700"):
            layout.create()
    folder.chmod(0o700)
    monkeypatch.setattr("os.getuid", lambda: 12345678)  # the same folder, made by somebody else
    other = Layout.at(tmp_path / ("deep/" * 30)).socket.parent
    other.mkdir()
    with pytest.raises(FailedPrecondition, match="folder of this user"):
        layout.create()
    monkeypatch.undo()

    monkeypatch.setattr(layouts, "_SHORT", tmp_path / "tmp")
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(FailedPrecondition, match="folder of this user"):
        layout.create()
