"""Every call of every service under requests that nobody would send: each is answered with a code that says whose fault
it is, no service dies of it, and the next one is served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.security.calls import SERVICES, call, request_class, valid
from tests.security.fuzzing import MORE, examples
from tests.security.harness import Harness
from tests.security.messages import broken, built, changed

KNOWN = {
    "OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED", "DATA_LOSS",
    "PERMISSION_DENIED",
}  # fmt: skip
COUNTS = {"controller": 220, "generator": 60, "trainer": 60, "evaluator": 60}


@pytest.fixture(scope="module")
def channels(services: Harness) -> Iterator[dict[str, grpc.Channel]]:
    made = {name: grpc.insecure_channel(address) for name, address in services.addresses.items()}
    yield made
    for channel in made.values():
        channel.close()


@pytest.mark.timeout(60 + 600 * MORE)
@pytest.mark.parametrize("name", SERVICES)
def test_no_request_breaks_a_service(services: Harness, channels: dict[str, grpc.Channel], name: str) -> None:
    service, channel = SERVICES[name], channels[name]
    good = service.methods_by_name["ListRuns" if name == "controller" else f"Get{name.title()}Info"]
    if name == "controller":
        make = service.methods_by_name["CreateRun"]
        assert call(channel, service, make, valid(make).SerializeToString()) == ("OK", "")
    before = services.resident_mib

    @examples(COUNTS[name])
    @given(st.data())
    def throw(data: st.DataObject) -> None:
        method: Any = data.draw(st.sampled_from(list(service.methods)))
        kind, sample = request_class(method), valid(method)
        request = data.draw(st.one_of(built(kind), changed(sample), changed(sample), broken(sample)))
        watching = method.name == "WatchRun"
        code, said = call(channel, service, method, request, seconds=0.3 if watching else 30)
        assert code in KNOWN or (watching and code == "DEADLINE_EXCEEDED"), (method.name, code, said)
        assert said or code == "OK", "an error says what is wrong"

    throw()
    assert services.alive
    assert call(channel, service, good, b"") == ("OK", "")
    assert "internal error" not in services.log.read_text()
    assert services.resident_mib - before < 400
