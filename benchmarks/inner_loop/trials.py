"""The models, and the sequences of each trial."""

from __future__ import annotations

import gzip
import json
import random
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sealkit.backends.models import ModelSettings, load_model
from sealkit.domains.knowledge import training_sequences
from sealkit.testing.tiny import make_tiny_model
from sealkit.types import LoraConfig, TrainingExample
from trainer_svc.encoding import Encoded, encode

Trial = tuple[Encoded, ...]

LORA = LoraConfig(rank=32, alpha=64)
SEAL_EPOCHS = 10
SHAPES = {"micro": {"hidden": 64, "layers": 2, "vocab": 512}, "tiny": {"hidden": 256, "layers": 4, "vocab": 4096}}
TRIALS = 16
RECORDED = Path("../shared/reference/selection_A.jsonl.gz")
DEMO = Path("configs/demo/passages.json")


@dataclass(frozen=True)
class Bench:
    """A model in one dtype, its trials, and the number of epochs; times are scaled to SEAL's ten."""

    name: str
    folder: Path
    dtype: str
    threads: int
    trials: Sequence[Trial]
    epochs: int

    @property
    def title(self) -> str:
        return f"{self.name} {self.dtype}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def tokens(self) -> float:
        """Tokens of the average trial in one epoch."""
        return tokens_of(self.trials) / len(self.trials)

    @property
    def sequences(self) -> float:
        """Sequences of the average trial."""
        return sum(len(trial) for trial in self.trials) / len(self.trials)


def tokens_of(trials: Sequence[Trial]) -> int:
    return sum(len(sequence.ids) for trial in trials for sequence in trial)


def make_bench(
    name: str, *, dtype: str, threads: int, epochs: int, data: str, smollm2: Path, scratch: Path, limit: int = 0
) -> Bench:
    """`data`: recorded (SEAL's own self-edits, or texts of similar length if the file is missing) or demo; `limit`:
    most tokens of a sequence."""
    texts = demo_texts() if data == "demo" else recorded_texts()
    if name in SHAPES:
        folder = make_tiny_model(scratch / name, "qwen2", context=2048, **SHAPES[name])  # type: ignore[arg-type]
        trials = [tuple(hashed(text, SHAPES[name]["vocab"]) for text in trial) for trial in texts]
    else:
        folder = smollm2
        tokenizer = load_model(ModelSettings(model=str(folder))).tokenizer
        trials = [tuple(encode(tokenizer, TrainingExample(text=t), append_eos=True) for t in trial) for trial in texts]
    if limit:
        trials = [tuple(_cut(sequence, limit) for sequence in trial) for trial in trials]
    return Bench(name, folder, dtype, threads, trials, epochs)


def recorded_texts() -> list[list[str]]:
    """Texts of the trials that SEAL recorded."""
    if not RECORDED.is_file():
        draw = random.Random(0)
        words = ["river", "lighthouse", "engineer", "bridge", "town", "machine", "glass", "century", "school"]
        return [[" ".join(draw.choices(words, k=draw.randint(12, 70))) for _ in range(8)] for _ in range(TRIALS)]
    with gzip.open(RECORDED, "rt") as lines:
        records = [json.loads(line) for line in lines]
    return [
        training_sequences(r["completions"][0]["text"], title=r["title"], context=r["context"], split_newlines=True)
        for r in records[:TRIALS]
    ]


def demo_texts() -> list[list[str]]:
    """The demo's passages, with each sentence as a note, like a self-edit of the demo."""
    passages = json.loads(DEMO.read_text())
    texts = []
    for passage in passages:
        notes = "\n".join(re.split(r"(?<=[.!?])\s+", passage["context"].strip()))
        texts.append(training_sequences(notes, title=passage["title"], context=passage["context"], split_newlines=True))
    return [texts[i % len(texts)] for i in range(TRIALS)]


def hashed(text: str, vocabulary: int) -> Encoded:
    """A text for a random model: pieces of words as ids, about as many as from a trained tokenizer."""
    ids = tuple(zlib.crc32(piece.encode()) % (vocabulary - 3) + 3 for piece in re.findall(r"\w{1,5}|[^\w\s]", text))
    return Encoded((*ids, 2), tuple(range(1, len(ids) + 1)))


def _cut(sequence: Encoded, limit: int) -> Encoded:
    return Encoded(sequence.ids[:limit], tuple(label for label in sequence.labels if label < limit))
