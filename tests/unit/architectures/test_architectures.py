"""One of each kind of architecture: trained as PEFT does, decoded as transformers does, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.architectures.checks import decoding_fault, training_fault
from tests.unit.architectures.table import CORE, REST, Architecture


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", [training_fault, decoding_fault])
def test_each_kind_of_architecture_gives_what_the_field_gives(
    fault: Callable[[Architecture, Path], str], tmp_path: Path
) -> None:
    faults = {one.name: fault(one, tmp_path / one.name) for one in CORE}
    assert {name: found for name, found in faults.items() if found} == {}


def test_the_page_of_models_says_what_is_tested() -> None:
    page = (Path(__file__).parents[3] / "docs/models.md").read_text("utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:4]] for line in page.splitlines() if line.count("|") == 4]
    told = {
        name: (trained == "yes", decoded == "yes") for name, trained, decoded in rows if decoded[:2] in ("ye", "no")
    }
    assert told == {one.name: (not one.trained, not one.decoded) for one in [*CORE, *REST]}
    trained, decoded = (sum(column) for column in zip(*told.values(), strict=True))
    said = " ".join(page.split())
    for count in (f"{len(told)} of transformers 5", f"{trained} are trained", f"{decoded} are decoded"):
        assert count in said
