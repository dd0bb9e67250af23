"""A trial's manifest: all that makes it again, what came out, and the versions that made it. Written with its result,
made by `controller.trial.manifest`.

No text stands in it: the completion is in the trial's row, the manifest has its digest. Manifests of other versions are
read too: what this version does not know is left out. So a field that is added here needs a default: what was true of
the trials before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sealkit.errors import NotReproducible
from sealkit.types import EarlyStopping, Policy, Sampling, Value


class Instructions(Value):
    """What makes a trial. `sampling` is the generator's, without a schema (`constrained` says to take the domain's);
    None where nothing is sampled. `row_seed` is what the generator makes of its seed for this very completion.
    `teaching`: how a teacher answers, where the self-edit asks something."""

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
    """What the adapter is trained and evaluated on; None: the policy."""
    teaching: Sampling = Sampling(temperature=0.0)

    @property
    def below(self) -> Policy:
        """What the adapter is trained and evaluated on: also the teacher."""
        return self.start_from or self.policy


class Found(Value):
    """What came out, as digests (SHA-256); empty where there was no such thing."""

    completion: str = ""
    answers: str = ""
    spec: str = ""
    adapter: str = ""
    weights_sha256: str = ""
    verdicts: str = ""
    baseline: str = ""
    steps: int = 0
    final_loss: float | None = None


class Manifest(Value):
    """`material`: digests of the fixed parts; `versions`: of services, domain and judge, as they were."""

    instructions: Instructions
    material: dict[str, str]
    found: Found
    versions: dict[str, str]


def read_manifest(trial: str, stored: Mapping[str, Any]) -> Manifest | None:
    """The manifest in the row of a trial of this name; None where it has none. Raises NotReproducible where the version
    that wrote it and this one have too little in common."""
    if not stored:
        return None
    try:
        return Manifest.from_stored(stored)
    except ValidationError as error:
        missing = ", ".join(sorted({".".join(map(str, fault["loc"])) for fault in error.errors()}))
        raise NotReproducible(
            f"another version wrote the manifest of {trial}, and this one cannot read its {missing}; make the trial "
            "again with the version that made it",
            metadata={"trial": trial},
        ) from error
