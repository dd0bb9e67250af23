"""Valid requests of every call, and how raw bytes are sent to one."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import Message
from seal.controller.v1 import controller_pb2
from seal.evaluator.v1 import evaluator_pb2
from seal.generator.v1 import generator_pb2
from seal.trainer.v1 import trainer_pb2
from seal.type.v1 import evaluation_pb2, model_pb2, text_pb2, training_pb2

from controller.accept import run_id
from sealkit.rpc.struct import struct_to_pb

MODULES = {
    "controller": controller_pb2, "generator": generator_pb2, "trainer": trainer_pb2, "evaluator": evaluator_pb2,
}  # fmt: skip
SERVICES: dict[str, Any] = {
    name: next(iter(module.DESCRIPTOR.services_by_name.values())) for name, module in MODULES.items()
}
POLICY = model_pb2.Policy(name="policies/base")
PROMPT = text_pb2.Prompt(user="What is the river called?")
SAMPLING = text_pb2.Sampling(temperature=1, top_p=0.9, max_tokens=4)
QUERY = evaluation_pb2.Query(query_id="q", question="Which river?", gold="the Ossel", prompt=PROMPT)
LORA = training_pb2.LoraConfig(rank=2, alpha=4, target_modules=["q_proj"])
OPTIMISATION = training_pb2.Optimisation(
    learning_rate=1e-3, epochs=1, batch_size=1, gradient_accumulation_steps=1, schedule=training_pb2.SCHEDULE_CONSTANT
)
RECORD = struct_to_pb(
    {
        "title": "Ossel",
        "context": "The river is called the Ossel.",
        "questions": [{"question": "Which?", "answer": "Ossel"}],
    }
)
RUN = f"runs/{run_id('n', 'r')}"
"""The run that the valid CreateRun makes."""
ADAPTER = model_pb2.AdapterRef(digest="ab" * 32)
VALID: dict[str, Message] = {
    "CreateRun": controller_pb2.CreateRunRequest(
        request_id="r", config=struct_to_pb({"name": "n", "rounds": 1, "editor": {"k": 2}}), records=[RECORD]
    ),
    "EstimateRun": controller_pb2.EstimateRunRequest(config=struct_to_pb({"rounds": 2}), records=[RECORD]),
    "CreateRunInParts": controller_pb2.CreateRunInPartsRequest(
        part=controller_pb2.CreateRunRequest(
            request_id="parts", config=struct_to_pb({"name": "n", "rounds": 1}), records=[RECORD]
        )
    ),
    "EstimateRunInParts": controller_pb2.EstimateRunInPartsRequest(
        part=controller_pb2.EstimateRunRequest(config=struct_to_pb({"rounds": 2}), records=[RECORD])
    ),
    "SampleSelfEdits": generator_pb2.SampleSelfEditsRequest(
        policy=POLICY,
        contexts=[generator_pb2.ContextPrompt(context_id="c", prompt=PROMPT, indices=[0, 1])],
        sampling=SAMPLING,
    ),
    "Evaluate": evaluator_pb2.EvaluateRequest(
        policy=POLICY, queries=[QUERY], sampling=SAMPLING, judge="content", retention_queries=[QUERY],
        earlier_queries=[QUERY],
        early_stopping=evaluator_pb2.EarlyStopping(confidence=0.9, interval=1),
    ),
    "seal.evaluator.v1.EvaluatorService.Answer": evaluator_pb2.AnswerRequest(
        policy=POLICY, prompt=PROMPT, sampling=SAMPLING
    ),
    "seal.controller.v1.ControllerService.Answer": controller_pb2.AnswerRequest(prompt=PROMPT, sampling=SAMPLING),
    "TrainAdapter": trainer_pb2.TrainAdapterRequest(
        policy=POLICY,
        spec=training_pb2.TrainingSpec(
            examples=[training_pb2.TrainingExample(text="The river is called the Ossel.", prompt=PROMPT)],
            lora=LORA,
            optimisation=OPTIMISATION,
        ),
        owner="runs/x",
    ),
    "TrainPolicy": trainer_pb2.TrainPolicyRequest(
        parent=POLICY, examples=[trainer_pb2.PolicyExample(prompt=PROMPT, completion="It is long.")],
        lora=LORA, optimisation=OPTIMISATION,
    ),
    "JoinAdapters": trainer_pb2.JoinAdaptersRequest(policy=POLICY, adapter=ADAPTER),
    "RouteAdapters": trainer_pb2.RouteAdaptersRequest(
        routes=[trainer_pb2.Route(adapter=ADAPTER, text="The river is called the Ossel.")]
    ),
    "CountTokens": trainer_pb2.CountTokensRequest(texts=["The river is called the Ossel."]),
    "DeleteAdapters": trainer_pb2.DeleteAdaptersRequest(adapters=[ADAPTER]),
    "GetLineage": controller_pb2.GetLineageRequest(name="aliases/a"),
    "ListTrials": controller_pb2.ListTrialsRequest(parent=RUN),
    "RetryTrials": controller_pb2.RetryTrialsRequest(parent=RUN, names=[f"{RUN}/rounds/0/trials/t"]),
    "SetAlias": controller_pb2.SetAliasRequest(name="aliases/a", policy="policies/p"),
}  # fmt: skip
_TRIAL = f"{RUN}/rounds/0/trials/t"
_NAMES = {"trial": _TRIAL, "rerun": _TRIAL, "policy": "policies/p", "alias": "aliases/a", "run": RUN}


def valid(method: Any) -> Message:
    """A request that the call accepts, or at least understands."""
    for name in (method.full_name, method.name):
        if name in VALID:
            return VALID[name]
    message: Message = request_class(method)()
    if "name" in message.DESCRIPTOR.fields_by_name:
        kinds = [kind for kind in _NAMES if kind in method.name.lower()]
        setattr(message, "name", _NAMES[kinds[0]] if kinds else RUN)  # noqa: B010 - a proto's field
    return message


def request_class(method: Any) -> type[Message]:
    """Its request's class."""
    module = next(m for m in MODULES.values() if m.DESCRIPTOR.name == method.input_type.file.name)
    found: type[Message] = getattr(module, method.input_type.name)
    return found


def call(channel: grpc.Channel, service: Any, method: Any, data: bytes, *, seconds: float = 30) -> tuple[str, str]:
    """Code and message of one call with these bytes for a request."""
    path = f"/{service.full_name}/{method.name}"
    try:
        if method.server_streaming:
            for _ in channel.unary_stream(path)(data, timeout=seconds):
                pass
        elif method.client_streaming:
            channel.stream_unary(path)(iter([data]), timeout=seconds)
        else:
            channel.unary_unary(path)(data, timeout=seconds)
    except grpc.RpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""
