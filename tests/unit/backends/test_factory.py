"""Which backend the settings name, and what is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluator_svc.settings import EvaluatorSettings
from generator_svc.settings import GeneratorSettings
from sealkit.backends.factory import BackendSettings, make_backend
from sealkit.backends.openai import OpenAIBackend
from sealkit.backends.routed import RoutedBackend
from sealkit.backends.tgi import TgiBackend
from sealkit.errors import InvalidConfig
from trainer_svc.settings import TrainerSettings

ENVIRONMENTS = sorted((Path(__file__).parents[3] / "configs/gpu").glob("*.env"))
SERVED = {"endpoint_url": "http://host/v1", "endpoint_model": "base"}


def settings(tmp_path: Path, **more: Any) -> BackendSettings:
    return BackendSettings(model="m", store_url=str(tmp_path), **more)


@pytest.mark.parametrize(("backend", "kind"), [("openai", OpenAIBackend), ("vllm", OpenAIBackend), ("tgi", TgiBackend)])
def test_each_backend_is_made_of_its_settings(tmp_path: Path, backend: str, kind: type[Any]) -> None:
    made = make_backend(settings(tmp_path, backend=backend, vllm_folder=str(tmp_path), **SERVED))
    assert isinstance(made, RoutedBackend)
    assert type(made.behind) is kind
    assert made.name == backend


@pytest.mark.parametrize("backend", ["openai", "tgi"])
def test_who_gets_new_adapters_is_refused_a_backend_that_takes_none(tmp_path: Path, backend: str) -> None:
    with pytest.raises(InvalidConfig, match=r"the evaluator must load .*backend vllm\) or in process"):
        make_backend(settings(tmp_path, backend=backend, **SERVED), service="evaluator", new_adapters=True)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"backend": "vllm", **SERVED}, "needs vllm_folder"),
        ({"backend": "openai"}, "needs endpoint_url, endpoint_model"),
        ({"backend": "openai", **SERVED, "endpoint_url": "host:80"}, "url: "),
        ({"backend": "vllm", "vllm_folder": "f", "vllm_owner": "A b", **SERVED}, "owner: "),
        ({"backend": "openai", "endpoint_api_key_env": "NOT_THERE", **SERVED}, r"\$NOT_THERE holds no API key"),
    ],
)
def test_settings_that_are_missing_or_wrong_are_named(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        make_backend(settings(tmp_path, **more))


@pytest.mark.parametrize("file", ENVIRONMENTS, ids=lambda file: file.stem)
def test_the_shipped_environments_are_what_the_services_read(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    values = dict(line.split("=", 1) for line in lines)
    for name, value in values.items():
        monkeypatch.setenv(name, value.replace("/data", str(tmp_path)))
    read = {"TRAINER": TrainerSettings(), "GENERATOR": GeneratorSettings(), "EVALUATOR": EvaluatorSettings()}
    for name in values.keys() - {"SEAL_MODEL"}:
        service, _, field = name.removeprefix("SEAL_").partition("_")
        assert field.lower() in type(read[service]).model_fields, f"{name} is no setting"
    names = [
        make_backend(read[service], service=service.lower(), new_adapters=True).name
        for service in ("GENERATOR", "EVALUATOR")
    ]
    assert names == ["vllm", "vllm"]
    assert read["EVALUATOR"].vllm_slots + read["GENERATOR"].vllm_slots == 16, "what vLLM is told to keep"


def test_two_environments_ship() -> None:
    assert {"qwen7b_split", "qwen7b_one_gpu"} == {file.stem for file in ENVIRONMENTS}
