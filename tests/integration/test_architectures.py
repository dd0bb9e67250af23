"""All other architectures: trained as PEFT does, decoded as transformers does, or refused by name. About a minute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.architectures.checks import decoding_fault, training_fault
from tests.unit.architectures.table import REST, Architecture

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.mark.parametrize("fault", [training_fault, decoding_fault])
def test_each_architecture_gives_what_the_field_gives(
    fault: Callable[[Architecture, Path], str], tmp_path: Path
) -> None:
    faults = {one.name: fault(one, tmp_path / one.name) for one in REST}
    assert {name: found for name, found in faults.items() if found} == {}
