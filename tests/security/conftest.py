"""The harness that is thrown at, and how long: SEAL_FUZZ_EXAMPLES multiplies the examples (`make fuzz`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.harness import Harness, harness


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with harness(tmp_path_factory.mktemp("harness")) as made:
        yield made
