"""Tasks of EleutherAI's lm-evaluation-harness as retention suites: by name, or a YAML file. Needs the extra `lm-eval`.

A task's documents become records of a question and its answer, which the run's own judge grades. So the numbers are not
the harness's: the harness scores log-likelihoods of choices (here an answer is generated), shows examples and filters
answers. A task whose target is a worked solution (gsm8k) is not suitable: no model would answer it word for word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from sealkit.errors import InvalidConfig, InvalidDataset, Unavailable
from sealkit.golds import golds_of

INSTALL = 'pip install "seal-suite[lm-eval]"'


class Task(Protocol):
    """The attributes of the harness's `ConfigurableTask` that are used here."""

    OUTPUT_TYPE: str
    eval_docs: Iterable[Mapping[str, Any]]

    def doc_to_text(self, doc: Mapping[str, Any]) -> Any: ...

    def doc_to_target(self, doc: Mapping[str, Any]) -> Any: ...

    def doc_to_choice(self, doc: Mapping[str, Any]) -> list[str]: ...


def retention_records(name: str, *, folder: Path, limit: int) -> list[dict[str, Any]]:
    """The first `limit` documents (0: all) of the task, as retention records. `name` is the harness's name of a task or
    group, or a YAML file, relative to `folder`.

    Raises InvalidConfig if the harness is not installed or has no such task; InvalidDataset if a task has no question
    with a text answer; Unavailable if its dataset cannot be downloaded.
    """
    tasks = _load(name, folder)
    return [record for task in sorted(tasks) for record in records_of(task, tasks[task], limit)]


def _load(name: str, folder: Path) -> Mapping[str, Task]:
    """The tasks of that name or group, by name. The harness loads their datasets immediately."""
    try:  # takes seconds, so only if a task is named
        from datasets.exceptions import DatasetsError
        from lm_eval.tasks import TaskManager
        from yaml import YAMLError
    except ImportError as error:
        raise InvalidConfig(
            f"dataset.retention_tasks: {name} is a task of lm-evaluation-harness, which is not installed; {INSTALL}"
        ) from error
    is_file = name.endswith((".yaml", ".yml"))
    if is_file and not (folder / name).is_file():
        raise InvalidConfig(f"dataset.retention_tasks: {folder / name} does not exist")
    try:
        tasks: Mapping[str, Task] = TaskManager(include_defaults=not is_file).load(
            [str(folder / name) if is_file else name]
        )["tasks"]
    except KeyError as error:
        raise InvalidConfig(f"dataset.retention_tasks: lm-evaluation-harness has no task {name!r}") from error
    except (ValueError, YAMLError) as error:
        raise InvalidConfig(f"dataset.retention_tasks: {name} is not a task: {error}") from error
    except OSError as error:
        raise Unavailable(f"the dataset of the task {name!r} cannot be downloaded: {error}") from error
    except DatasetsError as error:
        raise InvalidDataset(f"the dataset of the task {name!r} cannot be read: {error}") from error
    return tasks


def records_of(name: str, task: Task, limit: int) -> list[dict[str, Any]]:
    """Records of a task's first `limit` documents (0: all) that have a question and an answer. Raises InvalidDataset if
    there is none."""
    if task.OUTPUT_TYPE not in ("generate_until", "multiple_choice"):
        raise InvalidDataset(
            f"the task {name!r} has the output type {task.OUTPUT_TYPE}; retention needs text answers, which tasks "
            "of generate_until and multiple_choice have"
        )
    records = list(islice(_records(name, task), limit or None))
    if not records:
        raise InvalidDataset(f"no document of the task {name!r} has a question and an answer that are text")
    return records


def _records(name: str, task: Task) -> Iterator[dict[str, Any]]:
    for index, doc in enumerate(task.eval_docs):
        question, answer = task.doc_to_text(doc), task.doc_to_target(doc)
        if task.OUTPUT_TYPE == "multiple_choice":
            choices = [str(choice) for choice in task.doc_to_choice(doc)]
            answer = choices[answer] if isinstance(answer, int) and 0 <= answer < len(choices) else answer
            question = _with_choices(question, choices)
        # Some tasks are inverted, with a number for the text: one sentence for many questions.
        texts = [text for text in (answer if isinstance(answer, list) else [answer]) if isinstance(text, str)]
        golds = golds_of({"answer": texts})
        if isinstance(question, str) and question.strip() and golds:
            answers = golds[0] if len(golds) == 1 else list(golds)
            yield {"id": f"{name}/{index}", "question": question.strip(), "answer": answers}


def _with_choices(question: Any, choices: list[str]) -> Any:
    """The question with its choices, unless it lists them itself: without them the answer cannot be written."""
    if not isinstance(question, str) or all(choice in question for choice in choices):
        return question
    stem, cue = question.rstrip().removesuffix("Answer:"), "Answer:" if question.rstrip().endswith("Answer:") else ""
    return "\n".join([stem.rstrip(), "Choices: " + "; ".join(choices), *([cue] if cue else [])])
