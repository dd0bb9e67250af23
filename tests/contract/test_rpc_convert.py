"""Every value with a twin in the protos comes back as it went, through the wire's bytes, and has the twin's fields."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import create_model
from seal.controller.v1 import controller_pb2, resources_pb2
from seal.evaluator.v1 import evaluator_pb2
from seal.generator.v1 import generator_pb2
from seal.trainer.v1 import trainer_pb2
from seal.type.v1 import answer_pb2, evaluation_pb2, model_pb2, text_pb2, training_pb2

from sealkit import reports, resources, types
from sealkit.config import RunConfig, parse_config
from sealkit.errors import InvalidInput
from sealkit.rpc.interceptors import check
from sealkit.rpc.mapping import enum_from_pb, enum_to_pb, from_pb, message_name, plan, to_pb
from sealkit.rpc.mapping_exceptions import CODECS
from sealkit.rpc.struct import struct_from_pb, struct_to_pb
from tests.contract.values import values_of

SHARED = (answer_pb2, evaluation_pb2, model_pb2, text_pb2, training_pb2, resources_pb2)
SERVICES = (evaluator_pb2, generator_pb2, trainer_pb2, controller_pb2)
MESSAGES: dict[str, Descriptor] = {
    name: message for file in (*SHARED, *SERVICES) for name, message in file.DESCRIPTOR.message_types_by_name.items()
}
VALUES = {
    value_class
    for module in (types, resources, reports)
    for value_class in vars(module).values()
    if isinstance(value_class, type) and issubclass(value_class, types.Value) and value_class is not types.Value
}
TWINS = {
    value_class.__name__: (value_class, MESSAGES[message_name(value_class)])
    for value_class in VALUES - {kind for kind, _ in CODECS}
}


def _within(message: Descriptor) -> Iterator[Descriptor]:
    yield message
    for field in message.fields:
        if field.message_type is not None and field.message_type.full_name.startswith("seal."):
            yield from _within(field.message_type)


REQUESTED = {
    part.name
    for service in SERVICES
    for name, message in service.DESCRIPTOR.message_types_by_name.items()
    if name.endswith("Request")
    for part in _within(message)
}


@pytest.mark.parametrize("name", sorted(TWINS))
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_values_come_back_as_they_went(name: str, data: st.DataObject) -> None:
    value_class, message = TWINS[name]
    value = data.draw(values_of(value_class))
    pb = to_pb(value, GetMessageClass(message))
    assert from_pb(type(pb).FromString(pb.SerializeToString()), value_class) == value


@pytest.mark.parametrize("name", sorted(name for name, (_, message) in TWINS.items() if message.name in REQUESTED))
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_what_the_types_allow_passes_the_door(name: str, data: st.DataObject) -> None:
    value_class, message = TWINS[name]
    check(to_pb(data.draw(values_of(value_class)), GetMessageClass(message)))


@pytest.mark.parametrize("name", sorted(TWINS))
def test_a_value_and_its_message_have_the_same_fields(name: str) -> None:
    plan(*TWINS[name])


def test_a_message_without_a_value_is_listed() -> None:
    shared = {
        name: message.full_name for file in SHARED for name, message in file.DESCRIPTOR.message_types_by_name.items()
    }
    alone = {shared[name] for name in shared.keys() - {message.name for _, message in TWINS.values()}}
    assert alone == {full_name for _, full_name in CODECS if full_name.startswith("seal.")}


SPEC = types.TrainingSpec(
    examples=(types.TrainingExample(text="a fact"),), lora=types.LoraConfig(), optimisation=types.Optimisation()
)
VERDICT = {name: (info.annotation, ...) for name, info in types.Verdict.model_fields.items()}


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        (VERDICT | {"score": (float, ...)}, "the message has no score"),
        ({"query_id": (str, ...), "outcome": (types.Outcome, ...)}, "the value has no answer, reason"),
        (VERDICT | {"reason": (int, ...)}, r"Verdict\.reason cannot hold"),
        (VERDICT | {"reason": (tuple[str, ...], ...)}, r"Verdict\.reason cannot hold"),
        (VERDICT | {"reason": (str | None, ...)}, r"Verdict\.reason can be unset in only one"),
        (VERDICT | {"outcome": (types.FinishReason, ...)}, "different members"),
    ],
)
def test_a_field_that_does_not_fit_is_named(fields: Any, fault: str) -> None:
    with pytest.raises(TypeError, match=fault):
        plan(create_model("Verdict", __base__=types.Value, **fields), evaluation_pb2.Verdict.DESCRIPTOR)


def test_a_value_becomes_no_message_of_another_name() -> None:
    with pytest.raises(TypeError, match=r"Usage and seal\.type\.v1\.View"):
        to_pb(types.Usage(), evaluation_pb2.View)


def test_a_number_that_this_version_does_not_know_is_named() -> None:
    for number in (0, 99):
        with pytest.raises(InvalidInput, match=f"Outcome has no value {number} in this version"):
            from_pb(evaluation_pb2.Verdict(outcome=number), types.Verdict)
        with pytest.raises(InvalidInput, match=f"TrialState has no value {number} in this version"):
            enum_from_pb(number, resources.TrialState, resources_pb2.TrialState)
    with pytest.raises(InvalidInput, match="Event holds a kind that this version"):
        from_pb(resources_pb2.Event(cursor="7"), resources.Event)


def test_what_is_not_said_has_a_meaning() -> None:
    assert enum_to_pb(types.PromptFormat.AUTO, text_pb2.PromptFormat) == text_pb2.PROMPT_FORMAT_UNSPECIFIED
    assert enum_to_pb(types.PromptLoss.NONE, training_pb2.PromptLoss) == training_pb2.PROMPT_LOSS_UNSPECIFIED
    measured_by_0_1 = enum_from_pb(resources_pb2.GATE_STATE_UNSPECIFIED, resources.GateState, resources_pb2.GateState)
    assert measured_by_0_1 is resources.GateState.UNMEASURED
    assert enum_to_pb(resources.GateState.UNMEASURED, resources_pb2.GateState) == resources_pb2.GATE_STATE_UNMEASURED
    spec = to_pb(SPEC, training_pb2.TrainingSpec)
    spec.ClearField("distillation")
    assert from_pb(spec, types.TrainingSpec) == SPEC
    empty = model_pb2.Policy(name="policies/base", adapter=model_pb2.AdapterRef())
    assert from_pb(empty, types.Policy) == types.Policy(name="policies/base")


def test_a_config_survives_with_its_big_seed() -> None:
    config = RunConfig(seed=2**62 + 1, rounds=3)
    sent = struct_from_pb(struct_to_pb(config.model_dump(mode="json")))
    assert parse_config(sent) == config
    assert sent["rounds"] == 3
    assert isinstance(sent["rounds"], int)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": {"b": [1, datetime(2026, 1, 1)]}}, "config.a.b[1]"),
        ({"x": float("nan")}, "config.x"),
        ({"x": [float("inf")]}, "config.x[0]"),
        ({"x": {1, 2}}, "config.x"),
        ({"x": ["\ud800"]}, "config.x[0]"),
        ({"x": {"\ud800": 1}}, "config.x"),
    ],
)
def test_what_json_has_no_form_for_is_named(value: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        struct_to_pb(value, what="config")
    assert caught.value.fields[0][0] == path
    assert path in caught.value.message
