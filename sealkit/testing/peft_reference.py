"""PEFT's own answers, one prompt and one set of adapters at a time: the reference for the decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import peft
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from sealkit.backends.lora import CONFIG_FILE, WEIGHTS_FILE
from sealkit.backends.template import render_prompt
from sealkit.types import Prompt


class PeftReference:
    """The model of `folder` in float32 with random adapters, one for each entry of `adapters` (name → arguments of
    `peft.LoraConfig`), all weights drawn with deviation `std`."""

    def __init__(
        self, folder: Path, adapters: Mapping[str, Mapping[str, Any]], *, std: float = 0.15, seed: int = 7
    ) -> None:
        self.folder = folder
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for place, (name, arguments) in enumerate(adapters.items()):
                self._add(name, peft.LoraConfig(task_type="CAUSAL_LM", **arguments), std, first=place == 0)

    def files(self, name: str) -> dict[str, bytes]:
        """An adapter's files as PEFT writes them."""
        with TemporaryDirectory() as scratch:
            self._model.save_pretrained(scratch, selected_adapters=[name])
            return {file: Path(scratch, name, file).read_bytes() for file in (CONFIG_FILE, WEIGHTS_FILE)}

    def answer(self, prompt: Prompt, adapters: Sequence[str], max_tokens: int) -> str:
        """The greedy text with all `adapters`, or the base model's."""
        return self.answers([prompt], adapters, max_tokens)[0]

    def answers(self, prompts: Sequence[Prompt], adapters: Sequence[str], max_tokens: int) -> list[str]:
        """The greedy texts of one batch, padded to the left."""
        rows = [render_prompt(self._tokenizer, prompt) for prompt in prompts]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        with self._with(adapters), torch.inference_mode():
            out = self._model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=max_tokens)
        return [str(text) for text in self._tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]

    def divergence(self, text: Prompt | str, adapters: Sequence[str]) -> float:
        """KL(base || with `adapters`), the mean over all positions, in nats a token."""
        base, subject = (self.logits(text, names).double().log_softmax(-1) for names in ((), adapters))
        return float(torch.nn.functional.kl_div(subject, base, reduction="none", log_target=True).sum(-1).mean())

    def logits(self, text: Prompt | str, adapters: Sequence[str]) -> torch.Tensor:
        """Next-token log-probabilities at every position, [tokens, vocabulary]."""
        with self._with(adapters), torch.inference_mode():
            return cast(torch.Tensor, self._model(input_ids=self._ids(text)).logits[0])

    def _ids(self, text: Prompt | str) -> torch.Tensor:
        ids = self._tokenizer(text).input_ids if isinstance(text, str) else render_prompt(self._tokenizer, text)
        return torch.tensor([ids])

    def _with(self, adapters: Sequence[str]) -> AbstractContextManager[object]:
        """Activates `adapters` while the context lasts; without any, the base model."""
        if not adapters:
            return cast(AbstractContextManager[object], self._model.disable_adapter())
        self._model.base_model.set_adapter(list(adapters))
        return nullcontext()

    def _add(self, name: str, config: peft.LoraConfig, std: float, *, first: bool) -> None:
        if first:
            self._model = peft.get_peft_model(self._model, config, adapter_name=name)
        else:
            self._model.add_adapter(name, config)
        for key, parameter in self._model.named_parameters():
            if f".{name}." in key:
                torch.nn.init.normal_(parameter.data, std=std)
