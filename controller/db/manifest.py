"""A trial's manifest: everything needed to make the trial again, its results, and the versions of the software. It is
built by `controller.trial.manifest` and written with the trial's result.

It contains no text: the completion is in the trial's row, and the manifest has its digest. Manifests of other versions
are read too, without the fields that this version does not have. So a new field needs a default that is true for older
trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from sealkit.errors import NotReproducible
from sealkit.types import EarlyStopping, Policy, Sampling, Value


class Instructions(Value):
    """What makes a trial. `sampling` is the generator's, without a schema (`constrained` says to take the domain's);
    None where nothing is sampled. `row_seed` is what the generator makes of its seed for this very completion.
    `teaching`: sampling of the teacher's answers, if the self-edit asks a teacher."""

    policy: Policy
    editor: str
    context_id: str
    index: int
    domain: str
    options: dict[str, Any]
    sampling: Sampling | None
    row_seed: int | None
    constrained: bool
    inner_seed: int
    target_characters: int | None
    answering: Sampling
    judge: str
    retention_limit: int
    divergence: bool
    early_stopping: EarlyStopping | None
    start_from: Policy | None = None
    """The policy that the adapter is trained and evaluated on; None: `policy`."""
    teaching: Sampling = Sampling(temperature=0.0)
    editor_template: dict[str, Any] = Field(default_factory=dict)
    """Arguments for the chat template of the editor's prompt."""
    question_template: dict[str, Any] = Field(default_factory=dict)
    """The same of questions and of the prompts of training examples."""

    @property
    def below(self) -> Policy:
        """The policy that the adapter is trained and evaluated on; it is the teacher too."""
        return self.start_from or self.policy


class Found(Value):
    """The results, as digests (SHA-256); empty if there was none."""

    completion: str = ""
    teacher_answers: str = ""
    spec: str = ""
    adapter: str = ""
    weights_sha256: str = ""
    verdicts: str = ""
    baseline: str = ""
    steps: int = 0
    final_loss: float | None = None


class Manifest(Value):
    """`material`: digests of the run's fixed parts; `versions`: those of services, domain and judge."""

    instructions: Instructions
    material: dict[str, str]
    found: Found
    versions: dict[str, str]


def read_manifest(trial: str, stored: Mapping[str, Any]) -> Manifest | None:
    """The manifest in the row of the trial of this name; None if it has none. Raises NotReproducible if another version
    wrote it and this version cannot read it."""
    if not stored:
        return None
    try:
        return Manifest.from_stored(stored)
    except ValidationError as error:
        missing = ", ".join(sorted({".".join(map(str, fault["loc"])) for fault in error.errors()}))
        raise NotReproducible(
            f"another version wrote the manifest of {trial}, and this version cannot read its {missing}; rerun the "
            "trial with the version that made it",
            metadata={"trial": trial},
        ) from error
