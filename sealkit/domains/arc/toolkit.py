"""The toolkit: what an ARC self-edit may choose, as JSON."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sealkit.domains.base import Rejected


class Strict(BaseModel):
    """No type conversion, and no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Strategy(StrEnum):
    """Which tokens carry loss."""

    ALL = "train_using_all_tokens"
    OUTPUT = "train_using_output_tokens"


class DataGeneration(Strict):
    use_basic_augmentations: bool
    use_size_augmentations: bool
    use_chain_augmentations: bool
    use_repeat_augmentations: bool

    @property
    def any(self) -> bool:
        """Whether there is any augmentation."""
        return any(self.model_dump().values())


class Training(Strict):
    strategy: Annotated[Strategy, Field(strict=False)]
    learning_rate: float = Field(ge=1e-6, le=0.01)
    num_train_epochs: int = Field(ge=1, le=100)


class Toolkit(Strict):
    """A choice of tools, as SEAL's self-edits have it."""

    data_generation: DataGeneration
    training: Training


SCHEMA = json.dumps(Toolkit.model_json_schema())
NO_AUGMENTATION = DataGeneration(
    use_basic_augmentations=False,
    use_size_augmentations=False,
    use_chain_augmentations=False,
    use_repeat_augmentations=False,
)


def read_toolkit(completion: str) -> Toolkit:
    """The choice in a completion: its first JSON object; the text around it is ignored.

    Raises Rejected: NO_JSON, or INVALID_TOOLKIT with every faulty field and its error.
    """
    start = completion.find("{")
    if start < 0:
        raise Rejected("NO_JSON", "it has no {")
    try:
        raw: Any = json.JSONDecoder().raw_decode(completion, start)[0]
    except json.JSONDecodeError as error:
        raise Rejected("NO_JSON", f"{error.msg} at character {error.pos}") from error
    except (RecursionError, ValueError) as error:
        raise Rejected("NO_JSON", "its JSON cannot be read: nested too deeply, or a number too long") from error
    try:
        return Toolkit.model_validate(raw)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise Rejected("INVALID_TOOLKIT", "; ".join(faults)) from error
