"""Full weights: an adapter merged into its base model, as a folder that any program loads.

    python -m sealkit.backends.merged MODEL ADAPTER TARGET DIGEST

DIGEST is that of the base model that the adapter was trained on. The weights get the dtype that the config of MODEL
names, else float32.
"""

from __future__ import annotations

import sys
from pathlib import Path

from peft import PeftModel
from transformers import AutoConfig

from sealkit.backends.models import ModelSettings, load_model
from sealkit.errors import ModelMismatch, SealError


def merge(model: str, adapter: Path, target: Path, digest: str) -> None:
    """Writes the merged model and its tokenizer to `target`. Raises ModelMismatch if the model is not the one of
    `digest`; InvalidModel."""
    loaded = load_model(ModelSettings(model=model, device="cpu", dtype="float32"))
    if loaded.info.digest != digest:
        raise ModelMismatch(
            f"{model} has the digest {loaded.info.digest}, but the adapter was trained on a base model with {digest}; "
            "name the folder of that one"
        )
    stored = AutoConfig.from_pretrained(loaded.path, trust_remote_code=False, local_files_only=True).dtype
    whole = PeftModel.from_pretrained(loaded.model, str(adapter)).merge_and_unload()
    whole.to(stored or whole.dtype).save_pretrained(target)
    loaded.tokenizer.save_pretrained(target)


def main() -> int:
    """Exit code 1 with one line on stderr if it failed."""
    model, adapter, target, digest = sys.argv[1:]
    try:
        merge(model, Path(adapter), Path(target), digest)
    except SealError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
