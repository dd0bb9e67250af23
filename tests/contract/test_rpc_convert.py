"""Every value with a twin in the protos comes back as it went, through the wire's bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealkit import resources, types
from sealkit.config import RunConfig, parse_config
from sealkit.errors import InvalidInput
from sealkit.rpc import convert, convert_controller, convert_report
from sealkit.rpc.interceptors import check
from sealkit.rpc.struct import struct_from_pb, struct_to_pb

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
some = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
real = st.floats(allow_nan=False, allow_infinity=False)
unit = st.floats(0, 1)
count = st.integers(0, 2**31 - 1)
seed = st.integers(0, 2**64 - 1)
moment = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))


def tuples(strategy: st.SearchStrategy[Any], least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, min_size=least, max_size=3).map(tuple)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


prompt = st.builds(
    types.Prompt,
    user=some,
    system=text,
    format=st.sampled_from(types.PromptFormat),
    shots=tuples(st.builds(types.Shot, user=some, assistant=some)),
)
sampling = st.builds(
    types.Sampling,
    temperature=st.floats(0, 10),
    top_p=st.floats(0, 1, exclude_min=True),
    max_tokens=st.integers(1, 32768),
    stop=tuples(some),
    seed=seed,
    json_schema=text,
)
adapter_ref = st.builds(types.AdapterRef, digest=st.text("0123456789abcdef", min_size=64, max_size=64), uri=text)
policy = st.builds(types.Policy, name=some, adapter=maybe(adapter_ref))
model_info = st.builds(
    types.ModelInfo,
    name=text,
    digest=text,
    tokenizer_digest=text,
    context_length=count,
    has_chat_template=st.booleans(),
    dtype=text,
    device=text,
    build=st.dictionaries(text, text, max_size=3),
)
usage = st.builds(
    types.Usage,
    prompt_tokens=st.integers(0, 2**62),
    completion_tokens=st.integers(0, 2**62),
    train_tokens=st.integers(0, 2**62),
    device_seconds=real,
    wall_seconds=real,
)
span = st.tuples(st.integers(0, 1000), st.integers(1, 1000)).map(lambda s: (s[0], s[0] + s[1]))
training_example = st.builds(
    types.TrainingExample,
    text=some,
    prompt=maybe(prompt),
    prompt_loss=st.sampled_from(types.PromptLoss),
    loss_spans=tuples(span),
    teacher_prompt=maybe(prompt),
)
lora_config = st.builds(
    types.LoraConfig,
    rank=st.integers(1, 1024),
    alpha=st.floats(0, 1e6, exclude_min=True),
    dropout=st.floats(0, 1, exclude_max=True),
    target_modules=st.lists(some, min_size=1, max_size=3, unique=True).map(tuple),
)
optimisation = st.builds(
    types.Optimisation,
    learning_rate=st.floats(0, 1, exclude_min=True),
    epochs=st.integers(1, 10000),
    batch_size=st.integers(1, 4096),
    gradient_accumulation_steps=st.integers(1, 4096),
    schedule=st.sampled_from(types.Schedule),
    warmup_steps=count,
    weight_decay=unit,
    max_grad_norm=st.floats(0, 1e6),
    kl_beta=st.floats(0, 1e6),
)
weight = st.floats(0, 1000)
training_spec = st.builds(
    types.TrainingSpec,
    examples=tuples(training_example, 1),
    rehearsal=tuples(training_example),
    anchors=tuples(training_example),
    distillation=st.builds(types.Distillation, kl_weight=weight, ce_weight=weight, top_k=st.integers(0, 4096)),
    anchoring=st.builds(types.Anchoring, per_step=st.integers(0, 1024), weight=weight),
    lora=lora_config,
    optimisation=optimisation,
    append_eos=st.booleans(),
    seed=seed,
)
policy_example = st.builds(types.PolicyExample, prompt=prompt, completion=some)
view = st.builds(types.View, label=some, prompt=prompt)
query = st.builds(types.Query, query_id=some, question=some, gold=some, prompt=prompt, views=tuples(view))
verdict = st.builds(types.Verdict, query_id=text, answer=text, outcome=st.sampled_from(types.Outcome), reason=text)
completion = st.builds(
    types.Completion,
    context_id=text,
    index=count,
    text=text,
    finish_reason=st.sampled_from(types.FinishReason),
    usage=usage,
)
progress = st.builds(types.Progress, step=count, total_steps=count, loss=real)
training_result = st.builds(
    types.TrainingResult,
    adapter=adapter_ref,
    cached=st.booleans(),
    steps=count,
    first_loss=real,
    final_loss=real,
    weights_sha256=text,
    usage=usage,
)
retention = st.builds(
    types.Retention,
    kept=count,
    accuracy_before=unit,
    accuracy_after=unit,
    forgetting=real,
    forgetting_low=real,
    forgetting_high=real,
    lost_query_ids=tuples(text),
)
divergence = st.builds(types.Divergence, on_queries=maybe(real), on_fixed_text=real)
early_stopping = st.builds(
    types.EarlyStopping,
    to_beat=maybe(unit),
    confidence=st.floats(0.5, 1, exclude_min=True, exclude_max=True),
    interval=st.integers(1, 99),
)
evaluation = st.builds(
    types.Evaluation,
    verdicts=tuples(verdict),
    baseline_verdicts=tuples(verdict),
    baseline_cached=st.booleans(),
    retention=maybe(retention),
    divergence=maybe(divergence),
    stopped_early=st.booleans(),
    batch_variant_rate=unit,
    judge_version=text,
    usage=usage,
)

fault = st.builds(resources.Fault, code=st.integers(1, 16), reason=text, message=text)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | real | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
run_progress = st.builds(
    resources.RunProgress,
    stage=text,
    rounds_done=count,
    rounds_total=count,
    trials_done=count,
    trials_total=count,
)
run = st.builds(
    resources.Run,
    name=text,
    display_name=text,
    state=st.sampled_from(resources.RunState),
    config=st.dictionaries(text, json_value, max_size=3),
    create_time=moment,
    start_time=maybe(moment),
    end_time=maybe(moment),
    error=maybe(fault),
    progress=run_progress,
    tenant=text,
)
trial = st.builds(
    resources.Trial,
    name=text,
    state=st.sampled_from(resources.TrialState),
    phase=st.sampled_from(resources.TrialPhase),
    context_id=text,
    editor=text,
    index=count,
    round=count,
    policy=text,
    completion=text,
    answers=tuples(text),
    rejection=text,
    adapter=maybe(adapter_ref),
    accuracy=maybe(unit),
    baseline_accuracy=maybe(unit),
    forgetting=maybe(real),
    reward=maybe(real),
    selected=st.booleans(),
    verdicts=tuples(verdict),
    stage_seconds=st.dictionaries(text, real, max_size=3),
    usage=usage,
    attempts=count,
    error=maybe(fault),
    create_time=moment,
    end_time=maybe(moment),
    retention=maybe(retention),
    divergence=maybe(divergence),
    stopped_early=st.booleans(),
    batch_variant_rate=unit,
    stage_usage=st.dictionaries(text, usage, max_size=2),
    manifest=st.dictionaries(text, json_value, max_size=2),
    rerun_of=text,
    late_results=count,
)
policy_version = st.builds(
    resources.PolicyVersion,
    name=text,
    parent=text,
    run=text,
    version=count,
    round=maybe(count),
    adapter=maybe(adapter_ref),
    trials=tuples(text),
    forgetting=maybe(real),
    held_out_accuracy=maybe(unit),
    create_time=moment,
    usage=usage,
    retention=maybe(retention),
    divergence=maybe(divergence),
    scores=st.dictionaries(text, unit, max_size=3),
    gate=st.sampled_from(resources.GateState),
    gate_reason=text,
)
change = st.builds(resources.AliasChange, policy=text, time=moment, reason=text)
alias = st.builds(resources.Alias, name=text, policy=text, history=tuples(change), tenant=text)
quotas = st.builds(
    resources.Quotas,
    runs_at_once=count,
    trials_in_run=count,
    device_seconds_a_day=st.floats(0, allow_infinity=False),
    highest_priority=count,
)
caller_info = st.builds(resources.CallerInfo, name=text, role=text, tenant=text, quotas=quotas, used=quotas)
audit_entry = st.builds(
    resources.AuditEntry, **{field: moment if field == "time" else text for field in resources.AuditEntry.model_fields}
)
amount = st.floats(0, 1e9)
budget = st.builds(
    resources.Budget, trials=count, tokens=st.integers(0, 2**62), device_seconds=amount, wall_seconds=amount
)
kind = (
    st.builds(resources.RunStateChanged, state=st.sampled_from(resources.RunState), error=maybe(fault))
    | st.builds(resources.StageStarted, round=count, stage=text)
    | st.builds(resources.TrialFinished, trial=trial)
    | st.builds(resources.PolicyTrained, round=count, policy=policy_version, kept=count)
    | st.builds(resources.RoundFinished, round=count, policy=text)
)
event = st.builds(resources.Event, cursor=text, time=moment, progress=run_progress, kind=kind)
estimate = st.builds(resources.Estimate, mean=real, low=real, high=real, n=count)
row = st.builds(resources.ReportRow, key=text, label=text, split=text, accuracy=estimate)
cost = st.builds(
    resources.Cost,
    stages=st.dictionaries(text, usage, max_size=2),
    accepted=count,
    device_seconds_per_accepted=maybe(real),
    tokens_per_accepted=maybe(real),
    device_seconds_per_point=maybe(real),
    money=maybe(real),
    currency=text,
)
continual = st.builds(
    resources.Continual,
    contexts=tuples(text),
    matrix=tuples(tuples(maybe(unit))),
    just_learned=maybe(estimate),
    at_end=maybe(estimate),
    bwt=maybe(estimate),
    forgetting=maybe(estimate),
)
run_estimate = st.builds(
    resources.RunEstimate, trials=count, usage=usage, wall_seconds=real, based_on=count, basis=text
)
difference = st.builds(resources.Difference, field=text, recorded=text, rerun=text)
rerun = st.builds(resources.Rerun, trial=trial, original=text, identical=st.booleans(), differences=tuples(difference))
run_report = st.builds(
    resources.RunReport,
    rows=tuples(row),
    trial_counts=st.dictionaries(text, count, max_size=3),
    kept=count,
    trial_forgetting=maybe(estimate),
    policies=tuples(policy_version),
    stage_seconds=st.dictionaries(text, real, max_size=3),
    rl_gain=maybe(estimate),
    verdict=text,
    usage=usage,
    wall_seconds=real,
    cost=cost,
    round_costs=st.dictionaries(st.integers(0, 1000), cost, max_size=2),
    arm_gains=st.dictionaries(text, estimate, max_size=2),
    arm_costs=st.dictionaries(text, cost, max_size=2),
    continual=maybe(continual),
)

REQUEST_PARTS = {
    "prompt": prompt,
    "sampling": sampling,
    "adapter_ref": adapter_ref,
    "policy": policy,
    "training_example": training_example,
    "lora_config": lora_config,
    "optimisation": optimisation,
    "training_spec": training_spec,
    "policy_example": policy_example,
    "query": query,
    "early_stopping": early_stopping,
}
RESPONSE_PARTS = {
    "model_info": model_info,
    "usage": usage,
    "verdict": verdict,
    "completion": completion,
    "progress": progress,
    "training_result": training_result,
    "retention": retention,
    "divergence": divergence,
    "evaluation": evaluation,
}
RESOURCES = {
    "run_progress": run_progress,
    "run": run,
    "trial": trial,
    "policy_version": policy_version,
    "event": event,
    "alias": alias,
    "budget": budget,
    "quotas": quotas,
    "caller_info": caller_info,
    "audit_entry": audit_entry,
}
REPORTS = {
    "estimate": estimate,
    "run_report": run_report,
    "cost": cost,
    "continual": continual,
    "run_estimate": run_estimate,
    "rerun": rerun,
}


def _round_trip(module: Any, name: str, value: Any) -> Any:
    pb = getattr(module, f"{name}_to_pb")(value)
    return getattr(module, f"{name}_from_pb")(type(pb).FromString(pb.SerializeToString()))


@pytest.mark.parametrize("name", [*REQUEST_PARTS, *RESPONSE_PARTS])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_types_come_back_as_they_went(name: str, data: st.DataObject) -> None:
    value = data.draw((REQUEST_PARTS | RESPONSE_PARTS)[name])
    assert _round_trip(convert, name, value) == value


@pytest.mark.parametrize("name", RESOURCES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_resources_come_back_as_they_went(name: str, data: st.DataObject) -> None:
    value = data.draw(RESOURCES[name])
    assert _round_trip(convert_controller, name, value) == value


@pytest.mark.parametrize("name", REPORTS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_reports_come_back_as_they_went(name: str, data: st.DataObject) -> None:
    value = data.draw(REPORTS[name])
    assert _round_trip(convert_report, name, value) == value


@pytest.mark.parametrize("name", REQUEST_PARTS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_the_types_allow_passes_the_door(name: str, data: st.DataObject) -> None:
    check(getattr(convert, f"{name}_to_pb")(data.draw(REQUEST_PARTS[name])))


def test_every_conversion_has_its_way_back_and_is_tested() -> None:
    tested = (
        (convert, {*REQUEST_PARTS, *RESPONSE_PARTS}),
        (convert_controller, {*RESOURCES, "time"}),
        (convert_report, {*REPORTS}),
    )
    for module, names in tested:
        own = [n for n, f in vars(module).items() if getattr(f, "__module__", "") == module.__name__]
        there, back = ({n.removesuffix(end) for n in own if n.endswith(end)} for end in ("_to_pb", "_from_pb"))
        assert there == {n for n in back if not n.startswith("_")} == names


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
