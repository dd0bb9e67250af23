"""Who trains when: fairness between owners and jobs; and at which learning rate."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import get_scheduler

from sealkit.types import Optimisation, Schedule
from tests.unit.trainer.jobs import job_spec
from tests.unit.trainer.plain import SCHEDULES
from trainer_svc.job import Job
from trainer_svc.plan import learning_rate, micro_batches, total_steps
from trainer_svc.scheduler import Scheduler, next_to_join


class Endless(Job):
    """A job whose every micro-batch has `size` tokens."""

    def __init__(self, size: int, owner: str = "") -> None:
        super().__init__(job_spec(1, owner=owner))
        self.tokens = size


def served(jobs, budget: int, steps: int) -> Counter:
    scheduler, count = Scheduler(), Counter()
    for _ in range(steps):
        chosen = scheduler.fill(jobs, budget)
        assert chosen
        assert len(chosen) == 1 or sum(job.tokens for job in chosen) <= budget
        count.update(chosen)
    return count


def test_a_step_takes_all_that_fit():
    jobs = [Endless(10) for _ in range(4)]
    assert set(Scheduler().fill(jobs, 40)) == set(jobs)


def test_owners_share_evenly_whatever_their_number_of_jobs():
    crowd, single = [Endless(10, "a") for _ in range(9)], Endless(10, "b")
    count = served([*crowd, single], budget=20, steps=90)
    assert count[single] == 90
    assert all(count[job] == 10 for job in crowd)


@settings(max_examples=40)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.sampled_from("abc")), min_size=1, max_size=8),
    budget=st.integers(1, 80),
)
def test_nobody_starves(sizes, budget):
    jobs = [Endless(size, owner) for size, owner in sizes]
    count = served(jobs, budget, steps=300)
    assert all(count[job] for job in jobs)


def test_a_newcomer_does_not_catch_up_on_the_past():
    old, new, scheduler = Endless(10, "a"), Endless(10, "b"), Scheduler()
    for _ in range(50):
        scheduler.fill([old], 10)
    turns = Counter(scheduler.fill([old, new], 10)[0] for _ in range(20))
    assert turns == {old: 10, new: 10}


def test_free_slots_go_to_urgent_jobs_then_to_who_has_fewest():
    running = [Endless(1, "a"), Endless(1, "a"), Endless(1, "b")]
    first, second = Endless(1, "a"), Endless(1, "b")
    assert next_to_join([first, second], running) is second
    urgent = Job(job_spec(1, owner="a"))
    urgent.spec = type(urgent.spec)(**{**vars(urgent.spec), "urgent": True})
    assert next_to_join([first, second, urgent], running) is urgent


@pytest.mark.parametrize("schedule", list(Schedule))
@pytest.mark.parametrize("warmup", [0, 1, 4, 30])
def test_learning_rates_are_those_of_transformers(schedule, warmup):
    optimisation = Optimisation(learning_rate=0.3, schedule=schedule, warmup_steps=warmup)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    theirs = get_scheduler(SCHEDULES[schedule], optimiser, warmup, 20)
    for step in range(20):
        assert learning_rate(optimisation, step, 20) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        theirs.step()


@given(examples=st.integers(1, 13), size=st.integers(1, 5), accumulation=st.integers(1, 5), epochs=st.integers(1, 4))
def test_each_epoch_sees_each_example_once(examples, size, accumulation, epochs):
    optimisation = Optimisation(batch_size=size, gradient_accumulation_steps=accumulation, epochs=epochs)
    plan = list(micro_batches(examples, optimisation, seed=1))
    assert [batch.index for batch in plan] == list(range(len(plan)))
    assert sum(batch.closes for batch in plan) == total_steps(examples, optimisation)
    assert sum(batch.share for batch in plan) == pytest.approx(total_steps(examples, optimisation))
    seen = [example for batch in plan for example in batch.examples]
    for epoch in range(epochs):
        assert sorted(seen[epoch * examples : (epoch + 1) * examples]) == list(range(examples))
    assert plan == list(micro_batches(examples, optimisation, seed=1))
