"""The methods that are compared: how a text is trained, and what the next policy is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from benchmarks.learning.ways import WAYS, Way

_WAYS = {way.name: way for way in WAYS}
PASSAGE, BEST, CUES = (_WAYS[name] for name in ("passage_sft", "questions_cues_contrast", "cues_contrast_alone"))


@dataclass(frozen=True)
class Arm:
    """One method. `commit`: as `adapt.commit`; `rehearsed`: questions of the retention suite, with the base model's
    answers, in every training."""

    name: str
    label: str
    way: Way
    commit: Literal["join", "consolidate", "route"]
    rehearsed: int = 0


ARMS = (
    Arm("join", "passage, SFT; joined", PASSAGE, "join"),
    Arm("join_rehearsal", "passage, SFT; joined, four rehearsed answers", PASSAGE, "join", rehearsed=4),
    Arm("join_kl", "passage, SFT; joined, kl_beta .1", replace(PASSAGE, name="passage_kl", kl_beta=0.1), "join"),
    Arm("consolidate", "passage, SFT; consolidated", PASSAGE, "consolidate"),
    Arm("consolidate_best", "own questions, cues, contrast, anchor; consolidated", BEST, "consolidate"),
    Arm("route", "passage, SFT; routed", PASSAGE, "route"),
    Arm("route_best", "own questions, cues, contrast, anchor; routed", BEST, "route"),
    Arm("route_cues", "cues, contrast; routed", CUES, "route"),
)
