import json
from pathlib import Path

import pytest

from controller.accept import accept
from seal_cli.recipe import learning_recipe, load_recipe
from sealkit.errors import InvalidConfig, InvalidDataset

RECORDS = [
    {"title": f"T{n}", "context": "C", "split": "train", "questions": [{"question": "Q", "answers": ["A"]}]}
    for n in range(3)
]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config beside its dataset of three records."""
    (tmp_path / "data.json").write_text(json.dumps(RECORDS))
    path = tmp_path / "run.toml"
    path.write_text('rounds = 1\n[dataset]\npath = "data.json"\n[editor]\nk = 2\n')
    return path


def test_paths_in_a_config_are_relative_to_it(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert load_recipe(config, dataset=None, limit=None, settings=()).records == RECORDS


def test_documents_are_learned_with_the_retention_suite_of_the_config(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = [{"id": "r", "question": "Which?", "answer": "This."}]
    (config.parent / "suite.json").write_text(json.dumps(suite))
    named = ["dataset.retention_path=suite.json"]
    monkeypatch.chdir("/")
    assert learning_recipe(config, named).retention == suite, "relative to the config"
    monkeypatch.chdir(config.parent)
    assert learning_recipe(None, named).retention == suite, "relative to the working directory"
    assert learning_recipe(None, ()).retention == []


def test_a_dataset_of_the_command_line_is_relative_to_where_it_was_given(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = config.parent / "elsewhere"
    folder.mkdir()
    (folder / "mine.jsonl").write_text(json.dumps(RECORDS[0]) + "\n\n" + json.dumps(RECORDS[1]) + "\n")
    monkeypatch.chdir(folder)
    recipe = load_recipe(config, dataset="mine.jsonl", limit=1, settings=())
    assert recipe.records == RECORDS[:1]
    assert recipe.config.dataset.limit == 1


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("editor.k=7", lambda c: c.editor.k == 7),
        ("name=first try", lambda c: c.name == "first try"),
        ("editor.sampling={temperature=0.5}", lambda c: c.editor.sampling.temperature == 0.5),
        ("inner_loop.optimisation.epochs = 3", lambda c: c.inner_loop.optimisation.epochs == 3),
        ("passage_only=false", lambda c: c.passage_only is False),
    ],
)
def test_settings_change_the_config(config: Path, setting: str, read: object) -> None:
    changed = load_recipe(config, dataset=None, limit=None, settings=[setting]).config
    assert callable(read)
    assert read(changed)
    assert changed.rounds == 1


@pytest.mark.parametrize("setting", ["editor.k", "=3", "editor..k=3", "editor.kk=3", "rounds.x=1", "editor.k=many"])
def test_a_faulty_setting_is_named(config: Path, setting: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load_recipe(config, dataset=None, limit=None, settings=[setting])
    assert setting.partition("=")[0] in caught.value.message


def test_a_config_without_dataset_says_how_to_give_one(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("rounds = 1\n")
    with pytest.raises(InvalidDataset, match="--dataset"):
        load_recipe(tmp_path / "run.toml", dataset=None, limit=None, settings=())


def test_a_fault_that_the_controller_finds_is_told_with_file_and_line(config: Path) -> None:
    (config.parent / "data.json").write_text(
        json.dumps(RECORDS[0]) + "\n\n" + json.dumps({**RECORDS[1], "title": " "}) + "\n"
    )
    recipe = load_recipe(config, dataset=None, limit=None, settings=())
    with pytest.raises(InvalidDataset) as caught:
        accept(request_id="r", display_name="", config={}, records=recipe.records, retention=(), plugins=())
    said = recipe.dataset.located(caught.value).message
    assert said.startswith(f"{config.parent / 'data.json'}, line 3: title: "), said
    untouched = InvalidDataset("no record is in the train split", fields=(("records", "none"),))
    assert recipe.dataset.located(untouched) is untouched


def test_tasks_of_the_harness_join_the_retention_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def task(name: str, *, folder: Path, limit: int) -> list[dict[str, str]]:
        return [{"id": f"{name}/0", "question": "q", "answer": f"{folder == tmp_path} {limit}"}]

    monkeypatch.setattr("seal_cli.recipe.retention_records", task)
    (tmp_path / "data.jsonl").write_text(json.dumps(RECORDS[0]))
    (tmp_path / "mine.jsonl").write_text('{"id": "a", "question": "q", "answer": "a"}\n')
    lines = ['path = "data.jsonl"', 'retention_path = "mine.jsonl"', 'retention_tasks = ["arc_easy", "t.yaml"]']
    (tmp_path / "config.toml").write_text("\n".join(["[dataset]", *lines, "retention_task_limit = 7"]))
    recipe = load_recipe(tmp_path / "config.toml", dataset=None, limit=None, settings=())
    assert [(record["id"], record["answer"]) for record in recipe.retention] == [
        ("a", "a"),
        ("arc_easy/0", "True 7"),
        ("t.yaml/0", "True 7"),
    ]


def test_anchors_of_ones_own_are_read_where_the_config_wants_them(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps(RECORDS[0]))
    (tmp_path / "mine.jsonl").write_text('{"id": "a", "prompt": "Say a."}\n')
    (tmp_path / "config.toml").write_text('[dataset]\npath = "data.jsonl"\nanchors_path = "mine.jsonl"\n')

    def anchors(*settings: str) -> list[dict[str, str]]:
        return load_recipe(tmp_path / "config.toml", dataset=None, limit=None, settings=settings).anchors

    assert anchors() == anchors("inner_loop.anchors.source=bundled") == []
    assert anchors("inner_loop.anchors.source=file") == [{"id": "a", "prompt": "Say a."}]
    with pytest.raises(InvalidConfig, match=r"dataset\.anchors_path"):
        anchors("inner_loop.anchors.source=file", "dataset.anchors_path=")


def test_anchors_of_ones_own_are_read_for_documents_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = [{"id": "a", "prompt": "Say a."}]
    (tmp_path / "mine.jsonl").write_text(json.dumps(mine[0]) + "\n")
    lines = ["[dataset]", 'anchors_path = "mine.jsonl"', "[inner_loop.anchors]", 'source = "file"']
    (tmp_path / "learn.toml").write_text("\n".join(lines))
    monkeypatch.chdir("/")
    assert learning_recipe(tmp_path / "learn.toml", ()).anchors == mine, "relative to the config"
    monkeypatch.chdir(tmp_path)
    settings = ["inner_loop.anchors.source=file", "dataset.anchors_path=mine.jsonl"]
    assert learning_recipe(None, settings).anchors == mine, "relative to the working directory"
    assert learning_recipe(None, ()).anchors == []
    with pytest.raises(InvalidConfig, match=r"dataset\.anchors_path"):
        learning_recipe(None, settings[:1])
