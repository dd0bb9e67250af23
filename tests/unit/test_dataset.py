"""Datasets as they are published, exported and mistaken for one."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sealkit.dataset import Row, read_rows
from sealkit.domains.knowledge.published import passages_of
from sealkit.errors import InvalidDataset, Unavailable
from sealkit.golds import golds_of

LAKE = "Lake Ombrel lies in the Tavik highlands. Its amber water is coloured by a moss called sennet."
INN = "The inn at Cold Ferry was built in 1842 by Nora Birk, who said: «café for all»."
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Lake_Ombrel",
            "paragraphs": [
                {
                    "context": LAKE,
                    "qas": [
                        {
                            "id": "1",
                            "question": "What colours the water?",
                            "is_impossible": False,
                            "answers": [
                                {"text": "a moss called sennet", "answer_start": 72},
                                {"text": "sennet", "answer_start": 86},
                                {"text": "sennet", "answer_start": 86},
                            ],
                        },
                        {
                            "id": "2",
                            "question": "Who owns it?",
                            "is_impossible": True,
                            "answers": [],
                            "plausible_answers": [{"text": "Tavik", "answer_start": 24}],
                        },
                    ],
                }
            ],
        },
        {
            "title": "Cold_Ferry",
            "paragraphs": [
                {"context": INN, "qas": [{"id": "3", "question": "When?", "answers": [{"text": "1842"}]}]},
                {"context": "Nobody knows.", "qas": [{"id": "4", "question": "Why?", "answers": []}]},
            ],
        },
    ],
}
HF_ROWS: list[dict[str, Any]] = [
    {
        "id": qa["id"],
        "title": article["title"],
        "context": paragraph["context"],
        "question": qa["question"],
        "answers": {"text": [a["text"] for a in qa["answers"]], "answer_start": [0] * len(qa["answers"])},
    }
    for article in SQUAD["data"]  # type: ignore[attr-defined]
    for paragraph in article["paragraphs"]
    for qa in paragraph["qas"]
]
PASSAGES = [
    {
        "title": "Lake_Ombrel",
        "context": LAKE,
        "questions": [{"question": "What colours the water?", "answers": ["a moss called sennet", "sennet"]}],
    },
    {"title": "Cold_Ferry", "context": INN, "questions": [{"question": "When?", "answers": ["1842"]}]},
]
LEFT_OUT = ["left out: 2 questions without an answer", "left out: 1 passage of which no question has an answer"]


def table(rows: list[dict[str, Any]], **how: Any) -> str:
    """A CSV by the standard library's writer."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), **how)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def lines(rows: list[Any], end: str = "\n") -> str:
    return end.join(json.dumps(row) for row in rows)


def parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def numpy_cells(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows as the package datasets writes them to a CSV: its cells are numpy's own notation."""
    return [
        {
            **row,
            "answers": f"{{'text': array({row['answers']['text']!r}, dtype=object), "
            f"'answer_start': array({row['answers']['answer_start']!r}, dtype=int32)}}",
        }
        for row in rows
    ]


def read(path: Path | str, **how: Any) -> tuple[list[dict[str, Any]], list[str]]:
    rows, notices = read_rows(str(path), **how)
    found = passages_of(rows, notices)
    return [{key: record[key] for key in ("title", "context", "questions")} for record in found.records], found.notices


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("dev-v2.0.json", json.dumps(SQUAD)),
        ("pretty.json", json.dumps(SQUAD, indent=1)),
        ("dev-v2.0.json.gz", gzip.compress(json.dumps(SQUAD).encode())),
        ("articles.jsonl", lines(SQUAD["data"])),  # type: ignore[arg-type]
        ("rows.json", json.dumps(HF_ROWS)),
        ("rows.jsonl", lines(HF_ROWS)),
        ("named_wrong.json", lines(HF_ROWS, "\r\n")),
        ("viewer.json", json.dumps({"rows": [{"row_idx": i, "row": row} for i, row in enumerate(HF_ROWS)]})),
        ("rows.parquet", parquet(HF_ROWS)),
        ("rows", parquet(HF_ROWS)),
        ("rows.csv", table(HF_ROWS)),  # the cells of `answers` in Python's notation, as pandas writes them
        ("numpy.csv", table(numpy_cells(HF_ROWS))),
        ("json_cells.csv", table([{**row, "answers": json.dumps(row["answers"])} for row in HF_ROWS])),
        ("excel.csv", "\ufeff" + table(HF_ROWS, delimiter=";")),
        ("rows.tsv", table(HF_ROWS, delimiter="\t")),
        ("utf16.json", json.dumps(SQUAD, ensure_ascii=False).encode("utf-16")),
    ],
)
def test_one_dataset_in_all_its_forms(tmp_path: Path, name: str, content: str | bytes) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert read(tmp_path / name) == (PASSAGES, LEFT_OUT)


def test_a_cell_may_be_as_long_as_a_passage(tmp_path: Path) -> None:
    long = "word " * 60_000
    (tmp_path / "long.csv").write_text(table([{**HF_ROWS[0], "context": long}]))
    assert read(tmp_path / "long.csv")[0][0]["context"] == long


def test_another_encoding_is_found_and_said(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_bytes(table(HF_ROWS).encode("cp1252"))
    records, notices = read(path)
    assert records == PASSAGES
    assert notices[0] == f"{path} was read as cp1252, a guess; set dataset.encoding if it is another"
    assert read(path, encoding="cp1252") == (PASSAGES, LEFT_OUT)
    with pytest.raises(InvalidDataset, match=r"old\.csv: not utf-8: .* at byte"):
        read(path, encoding="utf-8")
    with pytest.raises(InvalidDataset, match="there is no encoding 'klingon'"):
        read(path, encoding="klingon")


def test_folders_and_patterns_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(lines(HF_ROWS[2:]))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines(HF_ROWS[:2]).encode()))
    (tmp_path / "README.md").write_text("# A dataset")
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "c.json").mkdir()
    (tmp_path / ".cache" / "c.json").write_text("[")
    assert read(tmp_path) == read("*.jsonl*", folder=tmp_path) == (PASSAGES, LEFT_OUT)
    with pytest.raises(InvalidDataset, match="no file matches"):
        read(tmp_path / "*.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidDataset, match=r"without a file that ends in \.json"):
        read(tmp_path / "empty")
    (tmp_path / "empty" / "data-00000.arrow").write_bytes(b"")
    with pytest.raises(InvalidDataset, match="to_parquet"):
        read(tmp_path / "empty")


def test_files_that_are_named_for_their_split_hold_their_rows_out(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00001.parquet").write_bytes(parquet(HF_ROWS[:2]))
    (tmp_path / "validation-00000-of-00001.parquet").write_bytes(parquet(HF_ROWS[2:]))
    rows, notices = read_rows(str(tmp_path))
    found = passages_of(rows, notices)
    assert [record["split"] for record in found.records] == [None, "heldout"]
    assert "validation-00000-of-00001.parquet" in found.notices[0]
    alone, _ = read_rows(str(tmp_path / "validation-00000-of-00001.parquet"))
    assert not any("split" in row.values for row in alone)  # with nothing to learn from, it is what is learnt from


class Server(BaseHTTPRequestHandler):
    """Serves a dataset, and a web page in its place."""

    FILES = {  # noqa: RUF012
        "/rows.jsonl.gz": gzip.compress(lines(HF_ROWS).encode()),
        "/page": b"<!DOCTYPE html><html><body>A dataset</body></html>",
    }

    def do_GET(self) -> None:
        content = self.FILES.get(self.path.partition("?")[0])
        self.send_response(200 if content else 404)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_: Any) -> None:
        pass


def test_a_url_is_fetched_and_its_secrets_are_not_shown() -> None:
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert read(f"{url}/rows.jsonl.gz?token=secret") == (PASSAGES, LEFT_OUT)
        for path, said in (("page?token=secret", "a web page, not data"), ("gone?token=secret", "answers 404")):
            with pytest.raises(InvalidDataset, match=said) as caught:
                read(f"{url}/{path}")
            assert "secret" not in caught.value.message
        server.shutdown()
    with pytest.raises(Unavailable, match="cannot be fetched") as lost:
        read("http://user:secret@127.0.0.1:1/rows.json")
    assert "secret" not in lost.value.message


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"", "a.json: empty"),
        ("a.json", b"[]", "a.json: empty"),
        ("a.json", b" \n ", "a.json: empty"),
        ("a.csv", b"title,context,question,answers\n", "a.csv: empty"),
        ("a.json", b"[{", "line 1, column 3: not JSON"),
        ("a.json", b'[\r\n{"a": 1},\r\n{"a": 1},]', r"line 3, column 10: not JSON"),
        ("a.json", b'[\r{"a": 1},\r5]', "line 3: a number, not a record"),
        ("a.json", b'[{"a": 1}] x', "line 1, column 12: not JSON"),
        ("a.jsonl", b'{"a": 1}\r\n\r\nnope\r\n', "line 3, column 1: not JSON"),
        ("a.jsonl", b'{"a": "\xe2\x80\xa8"}\n{"a": 1]}', "line 2, column 8: not JSON"),
        ("a.json", b'"just a text"', "line 1: a text, not a record"),
        ("a.json", b"[" * 100_000, "too deeply"),
        ("a.json", b"[" + b"1" * 5000 + b"]", "not JSON"),
        ("a.csv", b'title,context\nT,"a\nb"\nT,a,b\n', "a.csv, line 4: 3 cells, but the header has 2"),
        ("a.csv", b'title,context\nT,"never closed\n', "a.csv, line 2: not a table"),
        ("a.csv", b"title,title\nT,C\n", "line 1: the header has a column twice"),
        ("notes.txt", b"Just some prose.", r"line 1: neither JSON nor a table: 'Just some prose\.'"),
        ("a.xlsx", b"PK\x03\x04rest", "save the table as CSV"),
        ("a.parquet", b"PAR1 and then nothing", "cannot be read as Parquet"),
        ("a.json.gz", gzip.compress(b"[]" * 99)[:20], "cut off or damaged"),
        ("a.json", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        ("a.json", bytes(range(256)) * 4, "not a text in UTF-8"),
        ("a.pkl", b"\x80\x04\x95", "never opened"),
    ],
)
def test_what_cannot_be_read_says_where_and_what_to_do(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidDataset, match=said):
        read(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"gone\.json: cannot be read"):
        read(tmp_path / "gone.json")


def test_a_file_that_does_not_look_like_what_it_is_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "export.txt").write_text("question\nWhen?\n")
    rows, _ = read_rows(str(tmp_path / "export.txt"), format="csv")
    assert [(row.values, row.place) for row in rows] == [({"question": "When?"}, f"{tmp_path / 'export.txt'}, line 2")]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"text": "t", "label": 1}, "line 7: a record with the keys text, label; expected a passage"),
        ({"question": "q", "passage": "p", "answer": True}, "line 7: .* without a title; add a column `title`"),
        ({"title": "t", "paragraphs": [{"context": "c"}]}, r"line 7, paragraphs\[0\]: there is no list `qas`"),
        ({"title": "t", "context": "c", "question": "q", "answer": None}, "none of 1 questions has an answer"),
    ],
)
def test_a_row_in_no_known_form_says_what_it_has(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDataset, match=said):
        passages_of([Row(values, "x.jsonl, line 7")])


def test_questions_that_a_passage_lists_stay_as_they_are() -> None:
    asked = [{"question": "Q?", "answers": ["one"]}, {"question": "Q?", "answers": ["two"]}]
    rows = [Row({"title": "T", "context": "C", "questions": asked}, "line 1")]
    assert passages_of(rows).records[0]["questions"] == asked


def test_a_question_that_comes_again_in_another_row_adds_its_answer_and_nan_is_none() -> None:
    nan = float("nan")
    head = {"title": "T", "context": "C", "score": nan}
    rows = [
        {**head, "question": "Q?", "answer": "one"},
        {**head, "question": "Q? ", "answer": "two", "split": "validation"},
        {**head, "question": "R?", "answer": nan},
    ]
    found = passages_of([Row(row, f"line {n}") for n, row in enumerate(rows)])
    assert found.records == [
        {"title": "T", "split": None, "context": "C", "questions": [{"question": "Q? ", "answers": ["one", "two"]}]}
    ]
    assert found.notices == ["left out: 1 question without an answer"]


GOLDS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"answer": " sennet "}, ("sennet",)),
    ({"answer": ["a", "b", "a"]}, ("a", "b")),
    ({"answer": 1842}, ("1842",)),
    ({"answer": 1842.0}, ("1842",)),
    ({"answer": 3.5}, ("3.5",)),
    ({"answer": False}, ("no",)),
    ({"answer": None}, ()),
    ({"answer": float("nan")}, ()),
    ({"answers": {"text": ["a", ""], "answer_start": [0]}}, ("a",)),
    ({"answers": [{"text": "a"}, {"text": "b"}]}, ("a", "b")),
    ({"answer": "a", "other_answers": ["b"]}, ("a", "b")),
    ({"answers": ["a"], "is_impossible": True}, ()),
]


def test_gold_answers_in_every_form() -> None:
    assert [(question, golds_of(question)) for question, golds in GOLDS if golds_of(question) != golds] == []
    faulty: list[Callable[[], object]] = [
        lambda: golds_of({"question": "q"}),
        lambda: golds_of({"answer": {"value": "a"}}),
        lambda: golds_of({"answer": b"a"}),
    ]
    for ask in faulty:
        with pytest.raises(ValueError, match=r"neither|without `text`|not an answer"):
            ask()
