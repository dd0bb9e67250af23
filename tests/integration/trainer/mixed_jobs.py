"""Five hundred jobs of every kind, by a seed: good ones unlike each other, and those that must fail."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from sealkit.types import LoraConfig, Optimisation, Prompt, Schedule, TrainingExample, TrainingSpec

WORDS = ("the", "river", "Ossel", "lighthouse", "Veldermoor", "built", "engineer", "Ana", "Tressik", "machine", "books")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LIMITS = {"max_rank": 16, "max_steps": 5000, "max_examples": 64}
COUNTS = {
    "trained": 380,
    "cached": 30,
    "left while waiting": 20,
    "left while training": 20,
    "NON_FINITE_LOSS": 20,
    "EXAMPLE_TOO_LONG": 10,
    "LIMIT_EXCEEDED": 10,
    "UNKNOWN_TARGET_MODULE": 5,
    "NOTHING_TO_LEARN": 5,
}
"""How many of each, by how they should end."""


@dataclass(frozen=True)
class MixedJob:
    """What to send, and how it should end. `gap`: seconds between the job before it and this one."""

    number: int
    end: str
    spec: TrainingSpec
    owner: str
    gap: float


def mixed_jobs(seed: int) -> list[MixedJob]:
    """The jobs in the order of their arrival; no two but the repeats have the same spec."""
    draw = random.Random(seed)
    made = [(end, _KINDS[end](draw, i)) for end, count in COUNTS.items() if end != "cached" for i in range(count)]
    # Of two equal specs one is trained, whichever comes first.
    made += [("trained", spec) for _, spec in draw.sample([m for m in made if m[0] == "trained"], COUNTS["cached"])]
    draw.shuffle(made)
    return [
        MixedJob(number, end, spec, f"runs/{draw.randrange(3)}", draw.expovariate(1 / 0.01))
        for number, (end, spec) in enumerate(made)
    ]


def _text(draw: random.Random) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(2, 9)))


def _examples(draw: random.Random, most: int) -> tuple[TrainingExample, ...]:
    prompts = [None, None, Prompt(user="Write about the river.")]
    return tuple(TrainingExample(text=_text(draw), prompt=draw.choice(prompts)) for _ in range(draw.randint(1, most)))


def _good(draw: random.Random, _: int) -> TrainingSpec:
    return TrainingSpec(
        examples=_examples(draw, 5),
        rehearsal=_examples(draw, 2) if draw.random() < 0.2 else (),
        lora=LoraConfig(
            rank=draw.choice([1, 2, 3, 4, 8, 16]),
            alpha=draw.choice([2, 8, 16]),
            dropout=draw.choice([0, 0, 0.1]),
            target_modules=tuple(draw.sample(TARGETS, draw.randint(1, 7))),
        ),
        optimisation=Optimisation(
            learning_rate=10 ** draw.uniform(-4, -2),
            epochs=draw.randint(1, 4),
            batch_size=draw.randint(1, 3),
            gradient_accumulation_steps=draw.choice([1, 1, 2, 3]),
            schedule=draw.choice(list(Schedule)),
            warmup_steps=draw.choice([0, 0, 2]),
            weight_decay=draw.choice([0, 0.01]),
            max_grad_norm=draw.choice([0, 1]),
            kl_beta=draw.choice([0, 0, 0, 0.1]),
        ),
        append_eos=draw.random() < 0.8,
        seed=draw.getrandbits(63),
    )


def _with(lora: dict[str, object] | None = None, **optimisation: float) -> Callable[[random.Random, int], TrainingSpec]:
    """A good spec but for some of its settings."""

    def make(draw: random.Random, number: int) -> TrainingSpec:
        good = _good(draw, number)
        return good.model_copy(
            update={
                "lora": good.lora.model_copy(update=lora or {}),
                "optimisation": good.optimisation.model_copy(update=optimisation),
            }
        )

    return make


_endless = _with(epochs=1000, batch_size=8)


def _diverges(draw: random.Random, number: int) -> TrainingSpec:
    """In the loss at the second step, in its gradient, or in the gradient of the first: a tiny model with RMSNorm bears
    any learning rate that is allowed, so alpha has to help."""
    lora = _DIVERGING[number % len(_DIVERGING)]
    return _with({"rank": 4, **lora}, learning_rate=1.0, warmup_steps=0, epochs=9)(draw, number)


def _too_much(draw: random.Random, number: int) -> TrainingSpec:
    return (_with({"rank": 17}) if number % 2 else _with(epochs=10_000))(draw, number)


def _too_long(draw: random.Random, number: int) -> TrainingSpec:
    return _good(draw, number).model_copy(update={"examples": (TrainingExample(text=_text(draw) * 40),)})


def _nothing(draw: random.Random, number: int) -> TrainingSpec:
    """One token, which nothing comes before."""
    nothing = {"examples": (TrainingExample(text="a"),), "rehearsal": (), "append_eos": False}
    return _good(draw, number).model_copy(update=nothing)


_DIVERGING: tuple[dict[str, object], ...] = (
    {"alpha": 1e40, "target_modules": TARGETS},
    {"alpha": 1e40, "target_modules": ("q_proj", "k_proj")},
    {"alpha": 1e200, "target_modules": TARGETS},
)

_KINDS: dict[str, Callable[[random.Random, int], TrainingSpec]] = {
    "trained": _good,
    "left while waiting": _endless,
    "left while training": _endless,
    "NON_FINITE_LOSS": _diverges,
    "EXAMPLE_TOO_LONG": _too_long,
    "LIMIT_EXCEEDED": _too_much,
    "UNKNOWN_TARGET_MODULE": _with({"target_modules": ("q_proj", "query")}),
    "NOTHING_TO_LEARN": _nothing,
}
