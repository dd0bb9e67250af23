"""A run whose dataset is over the size of a message: its request comes in parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from seal.controller.v1 import controller_pb2 as pb

from controller.service import ControllerService
from controller.services import Services
from sealkit.errors import InvalidInput, LimitExceeded
from sealkit.rpc.struct import struct_to_pb
from tests.records import new_record
from tests.unit.controller.controller_fakes import DOMAIN, FakeServices, records, tiny_config

RECORDS = [struct_to_pb(record, what="record") for record in records()]


def parts_of(records: Iterable[Any] = RECORDS, **first: Any) -> list[pb.CreateRunRequest]:
    """The request with its config first, and then one record a part."""
    head = pb.CreateRunRequest(request_id="r", config=struct_to_pb(tiny_config(), what="config"), **first)
    return [head, *(pb.CreateRunRequest(records=[record]) for record in records)]


async def sent(parts: Iterable[Any], kind: Any = pb.CreateRunInPartsRequest) -> AsyncIterator[Any]:
    for part in parts:
        yield kind(part=part)


async def test_the_parts_are_the_run_that_one_message_is(tmp_path: Path) -> None:
    database = new_record(tmp_path)
    service = ControllerService(database, (DOMAIN,), services=Services(*[FakeServices()] * 3))
    whole = pb.CreateRunRequest()
    for part in parts_of():
        whole.MergeFrom(part)
    by_parts = await service.CreateRunInParts(sent(parts_of()), None)  # type: ignore[arg-type]
    at_once = await service.CreateRun(whole, None)  # type: ignore[arg-type]
    assert by_parts.run == at_once.run, "the same request id and content: the same run"
    estimate = pb.EstimateRunRequest(config=whole.config, records=whole.records)
    asked = await service.EstimateRunInParts(sent([estimate], pb.EstimateRunInPartsRequest), None)  # type: ignore[arg-type]
    assert asked.estimate.trials == (await service.EstimateRun(estimate, None)).estimate.trials  # type: ignore[arg-type]
    await database.close()


async def test_what_is_wrong_with_the_whole_is_refused(tmp_path: Path) -> None:
    database = new_record(tmp_path)
    small = ControllerService(database, (DOMAIN,), max_dataset_mib=1, services=Services(*[FakeServices()] * 3))
    big = struct_to_pb({"text": "x" * 400_000}, what="record")
    with pytest.raises(LimitExceeded, match="SEAL_CONTROLLER_MAX_DATASET_MIB"):
        await small.CreateRunInParts(sent(parts_of([big] * 3)), None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="records"):
        await small.CreateRunInParts(sent(parts_of([])), None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="display_name: has a control character"):
        await small.CreateRunInParts(sent(parts_of(display_name="a\x1b[31m")), None)  # type: ignore[arg-type]
    await database.close()
