"""The house that is thrown at, and how long: SEAL_FUZZ_EXAMPLES multiplies the examples (`make fuzz`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.house import House, house


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("house")) as made:
        yield made
