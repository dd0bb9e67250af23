"""From a request to an adapter in the store."""

from __future__ import annotations

import asyncio

import pytest

from sealkit.backends.lora import load_adapter
from sealkit.backends.models import ModelSettings, load_model
from sealkit.errors import (
    AdapterMismatch,
    AdapterNotFound,
    ExampleTooLong,
    InvalidInput,
    LimitExceeded,
    ShapeMismatch,
    UnknownTargetModule,
)
from sealkit.routing import Route, load_routes
from sealkit.store import AdapterStore
from sealkit.types import (
    AdapterRef,
    Anchoring,
    LoraConfig,
    Optimisation,
    Policy,
    PolicyExample,
    Progress,
    Prompt,
    TrainingExample,
    TrainingResult,
    TrainingSpec,
)
from tests.unit.trainer.jobs import PROBE
from trainer_svc.engine import Engine
from trainer_svc.limits import Limits
from trainer_svc.packed import PackedModel
from trainer_svc.trainer import Trainer

BASE = Policy(name="policies/base")
LORA = LoraConfig(rank=2, alpha=4, target_modules=("q_proj", "v_proj"))
TEXTS = ("The river is the Ossel.", "Ana Tressik built the lighthouse in 1847.")


def spec(*texts: str, lora: LoraConfig = LORA, **options) -> TrainingSpec:
    examples = tuple(TrainingExample(text=text) for text in texts or TEXTS)
    optimisation = Optimisation(**{"learning_rate": 1e-2, "epochs": 2, **options})
    return TrainingSpec(examples=examples, lora=lora, optimisation=optimisation)


@pytest.fixture(scope="module")
def loaded(folders):
    return load_model(ModelSettings(model=str(folders["llama"]), dtype="float32"))


@pytest.fixture(scope="module")
def model(loaded):
    return PackedModel(loaded.model)


@pytest.fixture
def store(tmp_path):
    return AdapterStore(tmp_path.as_uri())


class WatchedEngine(Engine):
    """Tells which jobs were submitted."""

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.submitted = asyncio.Queue()

    def submit(self, *args):
        job = super().submit(*args)
        self.submitted.put_nowait(job)
        return job


@pytest.fixture
def engine(model):
    engine = WatchedEngine(model, PROBE)
    yield engine
    engine.close()


@pytest.fixture
def trainer(loaded, engine, store):
    return Trainer(loaded, engine, store, limits=Limits(max_steps=50, max_rank=8, max_examples=4, max_tokens=100))


async def outcome(updates) -> TrainingResult:
    *progress, result = [update async for update in updates]
    assert all(isinstance(update, Progress) for update in progress)
    assert isinstance(result, TrainingResult)
    return result


async def test_an_adapter_is_trained_saved_and_described(trainer, engine, store):
    engine.start()
    result = await outcome(trainer.train_adapter(BASE, spec(), "runs/1"))
    assert not result.cached
    assert result.steps == 4
    assert result.final_loss < result.first_loss
    assert result.usage.train_tokens > 0
    assert result.usage.wall_seconds >= result.usage.device_seconds > 0
    weights = load_adapter(store.fetch(result.adapter.digest))
    assert weights.config.rank == 2
    assert {path.rpartition(".")[2] for path in weights.tensors} == {"q_proj", "v_proj"}
    manifest = store.manifest(result.adapter.digest)
    assert manifest["base_model"]["digest"] == trainer.info.digest
    assert manifest["final_loss"] == result.final_loss
    assert manifest["probe"]


async def test_the_same_request_again_trains_nothing(trainer, engine):
    engine.start()
    first = await outcome(trainer.train_adapter(BASE, spec(), "runs/1"))
    again = await outcome(trainer.train_adapter(BASE, spec(), "runs/2"))
    other = await outcome(trainer.train_adapter(BASE, spec(epochs=3), "runs/1"))
    assert (again.adapter, again.cached, again.usage.train_tokens) == (first.adapter, True, 0)
    assert (again.steps, again.first_loss, again.final_loss) == (first.steps, first.first_loss, first.final_loss)
    assert other.adapter != first.adapter


async def test_an_adapter_that_rotted_in_the_store_is_trained_anew(trainer, engine, store):
    engine.start()
    first = await outcome(trainer.train_adapter(BASE, spec(), "runs/1"))
    files = store.fetch(first.adapter.digest)
    folder = store.local_path(first.adapter.digest)
    for spoil in (lambda path: path.write_bytes(path.read_bytes()[:100]), lambda path: path.unlink()):
        spoil(folder / "adapter_model.safetensors")
        again = await outcome(trainer.train_adapter(BASE, spec(), "runs/2"))
        assert (again.adapter, again.cached) == (first.adapter, False)
        assert store.fetch(first.adapter.digest) == files


async def test_the_same_request_twice_at_once_trains_once(trainer, engine):
    both = [asyncio.create_task(outcome(trainer.train_adapter(BASE, spec(), owner))) for owner in "ab"]
    await asyncio.sleep(0)
    engine.start()
    first, second = await asyncio.gather(*both)
    assert first.adapter == second.adapter
    assert [first.cached, second.cached] == [False, True]
    assert second.usage.device_seconds == 0


async def test_a_job_ends_when_its_last_caller_leaves(trainer, engine):
    stays = asyncio.create_task(outcome(trainer.train_adapter(BASE, spec(), "a")))
    leaves = asyncio.create_task(outcome(trainer.train_adapter(BASE, spec(), "b")))
    alone = asyncio.create_task(outcome(trainer.train_adapter(BASE, spec(epochs=9), "c")))
    jobs = {job.spec.owner: job for job in [await engine.submitted.get() for _ in range(2)]}
    leaves.cancel()
    alone.cancel()
    await asyncio.gather(leaves, alone, return_exceptions=True)
    await asyncio.sleep(0)
    assert jobs["c"].cancelled
    assert not jobs["a"].cancelled
    engine.start()
    assert (await stays).steps == 4


async def test_a_policy_replaces_its_parent_and_trials_stack_on_it(trainer, engine, store):
    engine.start()
    examples = (PolicyExample(prompt=Prompt(user="Write about the river."), completion="It is the Ossel."),)
    optimisation = Optimisation(learning_rate=1e-2, epochs=2)
    options = {"seed": 1, "owner": "runs/1"}
    first = await outcome(trainer.train_policy(BASE, examples, LORA, optimisation, from_parent=False, **options))
    parent = Policy(name="policies/1", adapter=first.adapter)
    fresh = await outcome(trainer.train_policy(parent, examples, LORA, optimisation, from_parent=False, **options))
    assert fresh.adapter == first.adapter, "a fresh policy does not depend on what came before"
    onward = await outcome(trainer.train_policy(parent, examples, LORA, optimisation, from_parent=True, **options))
    assert onward.first_loss == pytest.approx(first.final_loss, rel=0.2)
    assert onward.first_loss < first.first_loss
    under, bare = [await outcome(trainer.train_adapter(p, spec(), "r")) for p in (parent, BASE)]
    assert under.adapter != bare.adapter
    assert under.first_loss != pytest.approx(bare.first_loss, rel=1e-6)
    assert store.manifest(under.adapter.digest)["policy_digest"] == first.adapter.digest


async def test_going_on_from_another_shape_is_refused(trainer, engine):
    engine.start()
    examples = (PolicyExample(prompt=Prompt(user="Write."), completion="It is the Ossel."),)
    optimisation = Optimisation(epochs=1)
    first = await outcome(trainer.train_policy(BASE, examples, LORA, optimisation, from_parent=False, seed=1, owner=""))
    parent = Policy(name="policies/1", adapter=first.adapter)
    for other in (LORA.model_copy(update={"rank": 3}), LORA.model_copy(update={"alpha": 9.0})):
        with pytest.raises(ShapeMismatch):
            await outcome(
                trainer.train_policy(parent, examples, other, optimisation, from_parent=True, seed=1, owner="")
            )


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        (spec(epochs=26), "max_steps"),
        (spec(*["one more"] * 5), "max_examples"),
        (spec(lora=LoraConfig(rank=9)), "max_rank"),
        (spec(*["a text of many words in which nothing much is said"] * 4), "max_tokens"),
    ],
)
async def test_a_limit_that_is_exceeded_is_named(trainer, asked, limit):
    with pytest.raises(LimitExceeded, match=limit) as failure:
        await outcome(trainer.train_adapter(BASE, asked, ""))
    assert failure.value.metadata["limit"] == limit


async def test_bad_requests_are_refused_before_they_wait(trainer):
    """The engine does not run here: nothing below reaches it."""
    with pytest.raises(UnknownTargetModule, match="q_proj"):
        await outcome(trainer.train_adapter(BASE, spec(lora=LoraConfig(rank=2, target_modules=("query",))), ""))
    with pytest.raises(ExampleTooLong):
        await outcome(trainer.train_adapter(BASE, spec("word " * 200), ""))
    unlabelled = TrainingExample(text="words", loss_spans=((100, 101),))
    nothing = TrainingSpec(**dict(spec()) | {"anchors": (unlabelled,), "anchoring": Anchoring(contrast=True)})
    with pytest.raises(InvalidInput, match=r"anchoring\.contrast"):
        await outcome(trainer.train_adapter(BASE, nothing, ""))
    missing = Policy(name="policies/9", adapter=AdapterRef(digest="0" * 64))
    with pytest.raises(AdapterNotFound):
        await outcome(trainer.train_adapter(missing, spec(), ""))


async def test_a_token_that_the_model_does_not_embed_is_refused_by_name(folders, engine, store):
    loaded = load_model(ModelSettings(model=str(folders["llama"]), dtype="float32"))
    loaded.tokenizer.add_tokens(["<image>"])
    trainer = Trainer(loaded, engine, store, limits=Limits())
    taught = TrainingExample(text="a town", teacher_prompt=Prompt(user="<image>"))
    (beyond,) = loaded.tokenizer("<image>").input_ids
    shown = TrainingExample(text="a town", prompt=Prompt(user="<image>"))
    for wrong in (spec("an <image>"), spec().changed(examples=(taught,)), spec().changed(anchors=(shown,))):
        with pytest.raises(InvalidInput, match=f"'<image>' .token {beyond}.") as refused:
            await outcome(trainer.train_adapter(BASE, wrong, ""))
        assert refused.value.metadata == {"token": str(beyond), "embedded": str(loaded.embedded)}


async def test_what_a_policy_and_a_trial_over_it_do_is_one_adapter(trainer, engine, store):
    engine.start()
    below = await outcome(trainer.train_adapter(BASE, spec(), "runs/1"))
    policy = Policy(name="policies/1", adapter=below.adapter)
    above = await outcome(trainer.train_adapter(policy, spec("Something else."), "runs/1"))
    joined = await trainer.join_adapters(policy, above.adapter)
    assert await trainer.join_adapters(policy, above.adapter) == joined
    assert load_adapter(store.fetch(joined.digest)).config.rank == 4
    assert store.manifest(joined.digest)["probe"] == store.manifest(above.adapter.digest)["probe"]
    assert await trainer.join_adapters(BASE, above.adapter) == above.adapter
    with pytest.raises(AdapterNotFound):
        await trainer.join_adapters(BASE, AdapterRef(digest="0" * 64))


async def test_routes_are_an_adapter_that_trains_nothing(trainer, engine, store):
    engine.start()
    first, second = [(await outcome(trainer.train_adapter(BASE, spec(text), "runs/1"))).adapter for text in TEXTS]
    routes = [Route(adapter=adapter, text=text) for adapter, text in zip((first, second), TEXTS, strict=True)]
    routed = await trainer.route_adapters(routes)
    assert await trainer.route_adapters(routes) == routed
    assert routed not in (await trainer.route_adapters(routes[:1]), await trainer.route_adapters(routes[::-1]))
    assert load_routes(store.fetch(routed.digest)) == routes
    policy = Policy(name="policies/1", adapter=routed)
    for wrong in (
        trainer.route_adapters([Route(adapter=routed, text="all")]),
        outcome(trainer.train_adapter(policy, spec(), "runs/1")),
        trainer.join_adapters(policy, first),
    ):
        with pytest.raises(AdapterMismatch, match='start_from = "base"'):
            await wrong
    above = await outcome(trainer.train_adapter(Policy(name="policies/2", adapter=first), spec(), "runs/1"))
    with pytest.raises(AdapterMismatch, match=f"trained over {first.digest}"):
        await trainer.route_adapters([Route(adapter=above.adapter, text="more")])
    with pytest.raises(AdapterNotFound):
        await trainer.route_adapters([Route(adapter=AdapterRef(digest="0" * 64), text="gone")])


async def test_training_again_tells_which_weights_came_out_and_leaves_the_store_alone(trainer, engine, store):
    engine.start()
    first = await outcome(trainer.train_adapter(BASE, spec(), "runs/1"))
    manifest = store.manifest(first.adapter.digest)
    recalled = await outcome(trainer.train_adapter(BASE, spec(), "runs/1"))
    again = await outcome(trainer.train_adapter(BASE, spec(), "runs/1", retrain=True))
    assert not again.cached
    assert again.usage.train_tokens == first.usage.train_tokens > 0
    assert first.weights_sha256 == manifest["files"]["adapter_model.safetensors"]["sha256"]
    assert {again.weights_sha256, recalled.weights_sha256} == {first.weights_sha256}
    assert store.manifest(first.adapter.digest) == manifest
