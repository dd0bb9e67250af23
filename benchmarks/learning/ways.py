"""The training methods that are compared, all at the same number of trained tokens.

Learning rates were chosen on passages of the train split that are not measured here; see docs/results/LOG.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sealkit.config import AnchorsConfig, InnerLoopConfig
from sealkit.domains.knowledge import KnowledgeDomain
from sealkit.types import LoraConfig, Optimisation, Schedule

Edit = Literal["none", "cues", "notes", "questions", "exam"]
"""The self-edit: none (only the passage, or the passage and its cues), the base model's notes or questions, or the
held-out questions themselves, as an upper bound for questions."""


@dataclass(frozen=True)
class Way:
    """One method. `batch`: sequences of a step; `anchors`: anchors in each step; `contrast`: whether A is fixed by
    contrast with all anchors; `passage`: whether the passage is trained on besides the self-edit; `distil`: whether the
    targets are the teacher's distributions; `cues`: cues for each sentence; `quoted`: whether questions are answered
    with sentences of the passage and not by the teacher; `routed`: whether the adapters of all passages are also
    measured behind routes, as one policy (adapt.commit = "route")."""

    name: str
    label: str
    edit: Edit
    rate: float
    batch: int = 1
    distil: bool = False
    passage: bool = True
    anchors: int = 0
    contrast: bool = False
    weight: float = 1.0
    kl_beta: float = 0.0
    cues: int = 0
    quoted: bool = False
    routed: bool = False

    @property
    def behind_routes(self) -> str:
        """The name of the rows of the adapters of all passages behind routes; empty if they are not measured."""
        return f"{self.name}_routed" if self.routed else ""

    @property
    def inner_loop(self) -> InnerLoopConfig:
        """The inner loop, for one epoch."""
        return InnerLoopConfig(
            objective="distil" if self.distil else "sft",
            start_from="base",
            lora=LoraConfig(rank=32, alpha=64),
            optimisation=Optimisation(
                learning_rate=self.rate,
                epochs=1,
                batch_size=self.batch,
                schedule=Schedule.LINEAR,
                max_grad_norm=1.0,
                kl_beta=self.kl_beta,
            ),
            anchors=AnchorsConfig(
                source="bundled" if self.anchors or self.contrast else "none",
                per_step=self.anchors,
                weight=self.weight,
                contrast=self.contrast,
            ),
            append_eos=False,
        )

    @property
    def domain(self) -> KnowledgeDomain:
        """The domain that makes the specs."""
        style = "questions" if self.edit in ("questions", "exam") else "implications"
        options = {"style": style, "passage_beside": self.passage, "max_questions": 8, "cues": self.cues}
        return KnowledgeDomain(options | ({"answers": "quoted"} if self.quoted else {}), self.inner_loop)


WAYS = (
    Way("passage_sft", "passage, SFT", "none", rate=1e-3, routed=True),
    Way("notes_sft", "notes and passage, SFT (SEAL's way)", "notes", rate=1e-3),
    Way("passage_sft_anchors", "passage, SFT, three anchors", "none", rate=2e-3, anchors=3),
    Way("passage_sft_8_anchors", "passage, SFT, eight anchors", "none", rate=3e-3, anchors=8),
    Way("passage_sft_contrast", "passage, SFT, contrast, two anchors", "none", rate=4e-3, anchors=2, contrast=True),
    Way(
        "cues_contrast",
        "passage and cues, SFT, contrast, two anchors",
        "cues",
        rate=4e-3,
        anchors=2,
        contrast=True,
        cues=2,
        routed=True,
    ),
    Way(
        "cues_contrast_alone",
        "passage and cues, SFT, contrast",
        "cues",
        rate=4e-3,
        contrast=True,
        cues=2,
        routed=True,
    ),
    Way(
        "questions_cues_contrast",
        "own questions, distilled, beside passage and cues, contrast, one anchor",
        "questions",
        rate=4e-3,
        distil=True,
        anchors=1,
        contrast=True,
        cues=2,
        routed=True,
    ),
    Way("questions", "own questions, distilled", "questions", rate=4e-3, batch=64, distil=True, passage=False),
    Way(
        "questions_passage_anchors",
        "own questions, distilled, beside the passage, anchors",
        "questions",
        rate=4e-3,
        batch=64,
        distil=True,
        anchors=3,
    ),
    Way(
        "questions_passage_contrast",
        "own questions, distilled, beside the passage, contrast, anchors",
        "questions",
        rate=4e-3,
        batch=64,
        distil=True,
        anchors=3,
        contrast=True,
        routed=True,
    ),
    Way(
        "exam_anchors",
        "the exam's own questions, distilled, contrast, anchors (ceiling)",
        "exam",
        rate=4e-3,
        batch=64,
        distil=True,
        passage=False,
        anchors=3,
        contrast=True,
    ),
    Way(
        "questions_quoted",
        "own questions, quoted answers, contrast",
        "questions",
        rate=4e-3,
        passage=False,
        contrast=True,
        quoted=True,
    ),
    Way(
        "questions_quoted_cues",
        "own questions, quoted answers, beside passage and cues, contrast",
        "questions",
        rate=4e-3,
        contrast=True,
        cues=2,
        quoted=True,
    ),
    Way(
        "exam_quoted",
        "the exam's own questions, quoted answers, contrast (ceiling)",
        "exam",
        rate=4e-3,
        passage=False,
        contrast=True,
        quoted=True,
    ),
)
