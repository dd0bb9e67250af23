"""What is too much, too deep or no number is refused with words that say what to do; and the next call is served."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from seal.controller.v1 import controller_pb2 as pb
from seal.generator.v1 import generator_pb2
from seal.type.v1 import text_pb2

from controller.accept import accept
from controller.db.database import Database
from controller.db.pages import key_of
from sealkit.domains.arc.grids import MalformedGrid, from_text
from sealkit.domains.base import load_domain
from sealkit.errors import InvalidConfig, InvalidDataset, InvalidInput, LimitExceeded
from sealkit.judges.content import decide
from sealkit.rpc.struct import struct_from_pb, struct_to_pb
from sealkit.schema import read_schema
from sealkit.types import Outcome
from tests.security.calls import POLICY, PROMPT, RECORD, SERVICES, VALID, call
from tests.security.harness import Harness

PASSAGE = {"title": "t", "context": "c", "questions": [{"question": "q", "answer": "a"}]}
Ask = Callable[[str, bytes], tuple[str, str]]


@pytest.fixture
def controller(services: Harness) -> Iterator[Ask]:
    service = SERVICES["controller"]
    with grpc.insecure_channel(services.addresses["controller"], options=[("grpc.max_send_message_length", -1)]) as to:
        yield lambda name, data: call(to, service, service.methods_by_name[name], data)
        assert call(to, service, service.methods_by_name["ListRuns"], b"") == ("OK", "")


@pytest.fixture
def generator(services: Harness) -> Iterator[Ask]:
    service = SERVICES["generator"]
    with grpc.insecure_channel(services.addresses["generator"]) as to:
        yield lambda name, data: call(to, service, service.methods_by_name[name], data)
        good = VALID["SampleSelfEdits"].SerializeToString()
        assert call(to, service, service.methods_by_name["SampleSelfEdits"], good) == ("OK", "")


def create(config: dict[str, Any], *records: dict[str, Any], retention: list[dict[str, Any]] = []) -> bytes:  # noqa: B006
    return pb.CreateRunRequest(
        request_id="limits",
        config=struct_to_pb(config),
        records=[struct_to_pb(record) for record in records] or [RECORD],
        retention=[struct_to_pb(record) for record in retention],
    ).SerializeToString()


def test_a_message_beyond_the_limit_is_refused(controller: Ask) -> None:
    code, said = controller("GetRun", b"\x0a" + b"a" * (65 << 20))
    assert code == "RESOURCE_EXHAUSTED"
    assert "larger than max" in said


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x05abc", b"\x0a\x03\xed\xa0\x80"])
def test_what_is_no_message_is_the_callers_fault(controller: Ask, data: bytes) -> None:
    code, said = controller("GetRun", data)
    assert code == "INVALID_ARGUMENT"
    assert "cannot be read" in said


def test_json_that_is_nested_too_deep_is_refused(controller: Ask) -> None:
    inner = b""
    for _ in range(200):  # Struct{fields: {"a": Value{struct_value: …}}}, by hand: protobuf itself refuses to build it
        value = b"\x2a" + _varint(len(inner)) + inner
        entry = b"\x0a\x01a\x12" + _varint(len(value)) + value
        inner = b"\x0a" + _varint(len(entry)) + entry
    code, said = controller("CreateRun", b"\x0a\x01r\x1a" + _varint(len(inner)) + inner)
    assert code == "INVALID_ARGUMENT"
    assert "cannot be read" in said


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"budget": {"tokens": 2**70}}, "budget.tokens"),
        ({"evaluation": {"early_stopping_interval": 2**40}}, "early_stopping_interval"),
        ({"evaluation": {"retention_limit": 2**40}}, "retention_limit"),
        ({"m_step": {"optimisation": {"warmup_steps": 2**40}}}, "warmup_steps"),
        ({"evaluation": {"sampling": {"json_schema": '{"pattern": "(a*)*b"}'}}}, "pattern"),
        ({"domain": {"name": "arc", "options": {"views": ["identity"] * 500}}}, "ways to ask"),
        ({"reward": {"forgetting_weight": "Infinity"}}, "finite"),
    ],
)
def test_a_setting_that_no_service_could_take_is_refused_at_once(
    controller: Ask, config: dict[str, Any], word: str
) -> None:
    code, said = controller("CreateRun", create(config))
    assert code == "INVALID_ARGUMENT"
    assert word in said


def test_numbers_that_json_has_no_form_for_are_refused_in_a_config(controller: Ask) -> None:
    request = pb.CreateRunRequest(request_id="nan", config=Struct(), records=[RECORD])
    request.config.fields["rounds"].number_value = float("nan")
    code, said = controller("CreateRun", request.SerializeToString())
    assert code == "INVALID_ARGUMENT"
    assert "finite" in said


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_and_are_nothing_in_a_record(number: float) -> None:
    sent = struct_to_pb({"note": number, "deep": [{"score": number}]}, what="record", nan_as_null=True)
    assert struct_from_pb(sent) == {"note": None, "deep": [{"score": None}]}
    sent.fields["note"].number_value = number  # another client sends it as it is
    assert struct_from_pb(sent, nan_as_null=True)["note"] is None
    with pytest.raises(InvalidInput):
        struct_from_pb(sent)


def test_more_trials_than_anybody_means_are_refused() -> None:
    records = [{**PASSAGE, "title": f"t{i}"} for i in range(300)]
    config = {"rounds": 1000, "contexts_per_round": 300, "editor": {"k": 256}}
    with pytest.raises(LimitExceeded, match="fewer rounds"):
        accept(request_id="r", display_name="", config=config, records=records, retention=(), plugins=())


@pytest.mark.parametrize(
    "record",
    [
        {**PASSAGE, "context": "x" * 600_000},
        {**PASSAGE, "questions": [{"question": "q" * 20_000, "answer": "a"}]},
        {**PASSAGE, "questions": [{"question": "q", "answer": "a"}] * 10_001},
    ],
)
def test_a_passage_that_is_too_long_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(InvalidDataset):
        accept(request_id="r", display_name="", config={}, records=[record], retention=(), plugins=())


@pytest.mark.parametrize(
    "retention",
    [
        [{"id": "a", "question": "q" * 20_000, "answer": "a"}],
        [{"id": "a" * 600, "question": "q", "answer": "a"}],
        [{"id": str(i), "question": "q", "answer": "a"} for i in range(10_001)],
    ],
)
def test_a_retention_suite_that_no_service_takes_is_refused(retention: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidDataset):
        accept(request_id="r", display_name="", config={}, records=[PASSAGE], retention=retention, plugins=())


def test_arc_tasks_are_bounded() -> None:
    pair = {"input": [[1]], "output": [[2]]}
    domain = load_domain("arc")({}, None)
    for task in (
        {"id": "a", "train": [pair] * 21, "test": [pair]},
        {"id": "a", "train": [{"input": [[1] * 31], "output": [[1]]}], "test": [pair]},
        {"id": "a", "train": [{"input": [[1]] * 31, "output": [[1]]}], "test": [pair]},
        {"id": "a", "train": [{"input": [[2**70]], "output": [[1]]}], "test": [pair]},
    ):
        with pytest.raises(InvalidDataset):
            domain.contexts([task])


@pytest.mark.parametrize("key", ['["\\ud800"]', f"[{'1' * 700}]", "[" * 700, "[1e400]", "[true]", "{}"])
@pytest.mark.parametrize("listing", [pb.ListRunsRequest, pb.ListPoliciesRequest, pb.ListAliasesRequest])
def test_a_page_token_that_nobody_gave_is_the_callers_fault(controller: Ask, listing: Any, key: str) -> None:
    token = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    code, said = controller(listing.__name__.removesuffix("Request"), listing(page_token=token).SerializeToString())
    assert code == "INVALID_ARGUMENT", said


async def test_what_no_database_holds_is_the_callers_fault(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/r.db")
    try:
        for value in ("\ud800", 2**70):
            with pytest.raises(InvalidInput, match="stored in a database"):
                await database.read(lambda c, v: c.exec_driver_sql("SELECT ?", (v,)).all(), value)
    finally:
        await database.close()


def test_page_tokens_are_read_or_refused() -> None:
    assert key_of("", str) is None
    with pytest.raises(InvalidInput):
        key_of("é" * 10, str)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1e-320, "top_p": 0.5}, {"temperature": 5e-324}, {"temperature": 10, "top_p": 5e-324},
        {"temperature": 1, "top_p": 1 - 2**-53}, {"temperature": 1e-39, "top_p": 0.1, "seed": 2**64 - 1},
    ],
)  # fmt: skip
def test_the_coldest_sampling_does_not_end_the_decoder(generator: Ask, sampling: dict[str, Any]) -> None:
    assert generator("SampleSelfEdits", sample(**sampling)) == ("OK", "")


def sample(**sampling: Any) -> bytes:
    return generator_pb2.SampleSelfEditsRequest(
        policy=POLICY,
        contexts=[generator_pb2.ContextPrompt(context_id="c", prompt=PROMPT, indices=[0])],
        sampling=text_pb2.Sampling(**{"temperature": 1, "top_p": 1, "max_tokens": 8, **sampling}),
    ).SerializeToString()


def _deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(a{1,1000}){1,1000}"},
        {"allOf": [{"pattern": f"x{{{i},{i * 100}}}"} for i in range(1, 50)]},
        {"type": "string", "minLength": 10**9}, {"type": "array", "maxItems": 10**9}, {"maxLength": 1.5}, {"not": {}},
        {"$ref": "http://127.0.0.1/x"}, {"$ref": "file:///etc/passwd"}, _deep(40), {"enum": list(range(600))},
        {"properties": {f"p{i}": {"type": "null"} for i in range(600)}},
    ],
)  # fmt: skip
def test_a_schema_that_might_take_for_ever_is_refused_at_once(generator: Ask, schema: dict[str, Any]) -> None:
    began = time.monotonic()
    code, said = generator("SampleSelfEdits", sample(json_schema=json.dumps(schema)))
    assert code == "INVALID_ARGUMENT"
    assert "json_schema" in said
    assert time.monotonic() - began < 5


def test_schemas_of_plain_values_are_taken() -> None:
    domain = load_domain("arc")({}, None)
    assert read_schema(domain.completion_schema)["type"] == "object"
    for text in ("{", "[]", "1", "[" * 5000, "true"):
        with pytest.raises(InvalidInput, match="json_schema"):
            read_schema(text)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("2 million", "1\tmillion"), ("2 million", "1\x1fmillion"),
        ("1 " + "trillion " * 1000, "x"), ("1 " + "trillion " * 100_000, "x"), ("cat", "\n" * 100_000),
        ("a" * 9000, "a" * 4000 + "b" + "a" * 4000), ("(" * 9000 + "cat", "x"), ("cat", "1 " + "trillion " * 900),
        (" ".join(f"w{i}ord" for i in range(1400)), " ".join(f"v{i}erb" for i in range(100_000))),
    ],
)  # fmt: skip
def test_no_text_holds_the_judge_up(gold: str, answer: str) -> None:
    began = time.process_time()
    assert decide("What is it?", gold, answer).outcome in (Outcome.INCORRECT, Outcome.UNGRADED)
    assert time.process_time() - began < 4


@pytest.mark.parametrize(
    "text", ["1" + "\n" * 100_000 + "x", f"[[{'1' * 5000}]]", "[" * 100_000, "[[" + "[" * 985 + "]" * 987]
)
def test_no_text_holds_the_grid_reader_up(text: str) -> None:
    began = time.process_time()
    with pytest.raises(MalformedGrid):
        from_text(text)
    assert time.process_time() - began < 2


def test_a_big_request_does_not_keep_others_waiting(services: Harness) -> None:
    """Many records take a while to check; meanwhile somebody else asks something small."""
    service = SERVICES["controller"]
    big = create({}, *({**PASSAGE, "title": f"t{i}"} for i in range(12_000)))
    with (
        grpc.insecure_channel(services.addresses["controller"]) as one,
        grpc.insecure_channel(services.addresses["controller"]) as other,
    ):
        ask = other.unary_unary(f"/{service.full_name}/ListPolicies")
        ask(b"", timeout=10)
        started, longest = time.monotonic(), 0.0
        working = one.unary_unary(f"/{service.full_name}/EstimateRun").future(_estimate(big), timeout=60)
        while not working.done():
            began = time.monotonic()
            ask(b"", timeout=30)
            longest = max(longest, time.monotonic() - began)
        working.result()
    assert longest < (time.monotonic() - started) / 4


def _estimate(create_run: bytes) -> bytes:
    asked = pb.CreateRunRequest.FromString(create_run)
    return pb.EstimateRunRequest(config=asked.config, records=asked.records).SerializeToString()


def test_limits_are_errors_that_name_the_limit() -> None:
    with pytest.raises(InvalidConfig, match="rounds"):
        accept(request_id="r", display_name="", config={"rounds": 10**9}, records=[PASSAGE], retention=(), plugins=())
