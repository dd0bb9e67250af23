"""Everything that reads what others wrote: files, stores, streams, models' words. Each reads it, or says in an error of
its own why not; none crashes, hangs or believes a size that somebody claims."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fakeredis.aioredis import FakeRedis
from hypothesis import given
from hypothesis import strategies as st

from sealkit.backends.lora import CONFIG_FILE, WEIGHTS_FILE, LoraWeights, dump_adapter, load_adapter
from sealkit.backends.openai import read_completion
from sealkit.backends.vllm import read_likely
from sealkit.config import InnerLoopConfig, load_config
from sealkit.dataset import read_rows
from sealkit.domains.arc.grids import MalformedGrid, from_text
from sealkit.domains.base import Rejected, load_domain, spec_of, study_of
from sealkit.domains.knowledge.published import passages_of
from sealkit.endpoint import Endpoint, EndpointOptions
from sealkit.errors import AdapterCorrupt, AdapterMismatch, InvalidConfig, InvalidDataset, InvalidInput, Unavailable
from sealkit.judges import Answer, load_judge
from sealkit.queue import Queue
from sealkit.rpc.authority import read_callers
from sealkit.schema import read_schema
from sealkit.store import MANIFEST, AdapterStore
from sealkit.types import LoraConfig, Outcome
from tests.security.fuzzing import MORE, examples
from tests.security.messages import texts, trees
from tests.serving import HttpServer, serving

pytestmark = pytest.mark.timeout(60 + 300 * MORE)

DIGEST = "ab" * 32
TOML = (
    "[[caller]]", 'name = "a"', 'role = "admin"', "token_sha256 = ''", "=", "[", "]", "{", '"""', "1e9999", "0x", "\n",
    "[editor]", "k = 5", "rounds =", "\\ud800", "inf", "nan", "[domain.options]", "[[tenant]]", "'", "1979-05-27",
)  # fmt: skip
WEIGHTS = dump_adapter(
    LoraWeights(LoraConfig(rank=2, alpha=4, target_modules=("q",)), {"q": (torch.ones(2, 3), torch.ones(4, 2))}), "tiny"
)
json_texts = st.one_of(
    texts,
    trees.map(lambda value: json.dumps(value)),
    st.sampled_from(("[" * 2000, '{"a":' * 2000, "1" * 5000, '"\\ud800"')),
)
WORDS = (
    "Question 1:", "Answer:", "---", "\n", "[[1, 2]]", "1 2\n3 4", "{", "}", "\\ud83d", "\0", "yes", "1 trillion", "(",
    "forty-two", "no.", "\t", "million", "- ", "ﬁ", "٣", "½", "İ",
)  # fmt: skip
words = st.lists(st.one_of(st.sampled_from(WORDS), texts), max_size=8).map(" ".join)


def flipped(raw: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some of them changed, or cut off."""
    places = st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), min_size=1, max_size=6)

    def change(where: list[tuple[int, int]], end: int) -> bytes:
        out = bytearray(raw)
        for place, value in where:
            out[place] = value
        return bytes(out[:end])

    return st.builds(change, places, st.one_of(st.just(len(raw)), st.integers(0, len(raw))))


@pytest.mark.parametrize("read", [read_callers, load_config])
def test_toml(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    file = tmp_path / "x.toml"

    @examples(90)
    @given(st.one_of(st.lists(st.sampled_from(TOML), max_size=8).map("\n".join).map(str.encode), st.binary(max_size=60),
                     st.sampled_from((b"a=" + b"[" * 5000, b"x=" + b"{a=" * 5000, b"a=" + b"1" * 5000))))  # fmt: skip
    def throw(content: bytes) -> None:
        file.write_bytes(content)
        with contextlib.suppress(InvalidConfig):
            read(file)

    throw()


scalar = st.one_of(texts, trees)
questions = st.one_of(trees, st.lists(st.fixed_dictionaries({"question": scalar, "answer": scalar}), max_size=2))
pairs = st.one_of(trees, st.lists(st.fixed_dictionaries({"input": trees, "output": trees}), max_size=2))
records = st.fixed_dictionaries(
    {},
    optional={
        "title": scalar,
        "context": scalar,
        "questions": questions,
        "id": scalar,
        "train": pairs,
        "test": pairs,
        "split": scalar,
    },
)


@examples(90)
@given(st.sampled_from(("knowledge", "arc")), st.lists(records, max_size=3))
def test_datasets(name: str, dataset: list[dict[str, Any]]) -> None:
    domain = load_domain(name)({}, None)
    with contextlib.suppress(InvalidDataset):
        domain.contexts(dataset)


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.csv", "x.parquet", "x"])
def test_files_of_datasets(tmp_path: Path, name: str) -> None:
    @examples(80)
    @given(st.one_of(json_texts.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=80),
                     st.lists(records, max_size=3).map(lambda rows: json.dumps(rows).encode()),
                     st.lists(questions, max_size=2).map(lambda asked: json.dumps({"data": [
                         {"title": "t", "paragraphs": [{"context": "c", "qas": asked}]}]}).encode())))  # fmt: skip
    def throw(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        with contextlib.suppress(InvalidDataset):
            read = passages_of(*read_rows(str(tmp_path / name)))
            load_domain("knowledge")({}, None).contexts(read.records)

    throw()


@examples(120)
@given(flipped(WEIGHTS[WEIGHTS_FILE]))
def test_an_adapters_weights(raw: bytes) -> None:
    with contextlib.suppress(AdapterCorrupt):
        load_adapter({**WEIGHTS, WEIGHTS_FILE: raw})


@examples(60)
@given(st.one_of(json_texts.map(lambda t: t.encode("utf-8", "replace")), st.binary(max_size=40), st.builds(
    lambda key, value: json.dumps({**json.loads(WEIGHTS[CONFIG_FILE]), key: value}).encode(),
    st.sampled_from(("r", "lora_alpha", "target_modules", "lora_dropout", "bias", "use_rslora", "peft_type")), trees,
)))  # fmt: skip
def test_an_adapters_config(raw: bytes) -> None:
    with contextlib.suppress(AdapterCorrupt):
        load_adapter({**WEIGHTS, CONFIG_FILE: raw})


@pytest.mark.parametrize("header", [b"", b"\0" * 7, struct.pack("<Q", 2**63), struct.pack("<Q", 10**9) + b"{}",
                                    struct.pack("<Q", 2) + b"{}", struct.pack("<Q", 8) + b'{"a":[[['])  # fmt: skip
def test_a_header_that_lies_about_its_size(header: bytes) -> None:
    with pytest.raises(AdapterCorrupt):
        load_adapter({**WEIGHTS, WEIGHTS_FILE: header})


def test_a_tensor_that_claims_a_terabyte() -> None:
    about = {"base_model.model.q.lora_A.weight": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}
    header = json.dumps(about).encode()
    with pytest.raises(AdapterCorrupt):
        load_adapter({**WEIGHTS, WEIGHTS_FILE: struct.pack("<Q", len(header)) + header})


def test_manifests(tmp_path: Path) -> None:
    store = AdapterStore(str(tmp_path / "store"))
    store.put(DIGEST, WEIGHTS, {})
    folder = store.local_path(DIGEST)
    assert folder is not None
    good = (folder / MANIFEST).read_bytes()

    about = json.loads(good)
    lied = st.builds(lambda key, value: json.dumps({**about, key: value}), st.sampled_from(("digest", "files")), trees)
    written = st.one_of(lied, json_texts).map(lambda text: text.encode("utf-8", "replace"))

    @examples(120)
    @given(st.one_of(flipped(good), st.binary(max_size=40), written))
    def throw(raw: bytes) -> None:
        (folder / MANIFEST).write_bytes(raw)
        with contextlib.suppress(AdapterCorrupt, AdapterMismatch):
            store.fetch(DIGEST)

    throw()


@examples(120)
@given(st.one_of(words, json_texts))
def test_self_edits(completion: str) -> None:
    """What a model wrote becomes a TrainingSpec, or is rejected with a reason that a database holds."""
    pair = {"input": [[1]], "output": [[2]]}
    records = {"knowledge": {"title": "t", "context": "c", "questions": [{"question": "q", "answer": "a"}]},
               "arc": {"id": "a", "train": [pair, pair], "test": [pair]}}  # fmt: skip
    for name, record in records.items():
        domain = load_domain(name)({}, InnerLoopConfig())
        (context,) = domain.contexts([record])
        try:
            domain.compile(context, completion.replace("\0", "\ufffd"), 0)
        except Rejected as rejected:
            str(rejected).encode()
    asking = load_domain("knowledge")({"style": "questions"}, InnerLoopConfig())
    (context,) = asking.contexts([records["knowledge"]])
    with contextlib.suppress(Rejected):
        study = study_of(asking, context, completion)
        assert study is not None
        spec_of(asking, context, completion, [completion] * len(study.items), 0)


@examples(120)
@given(st.sampled_from(("content", "exact", "grid")), words, words, st.lists(words, min_size=1, max_size=3))
def test_judges(name: str, question: str, gold: str, answers: list[str]) -> None:
    judge = load_judge(name)
    said = [Answer(text, "flip_rows/0" if number else "") for number, text in enumerate(answers)]
    judgement = asyncio.run(judge.judge(question, gold, said))
    assert judgement.outcome in Outcome
    (judgement.reason + judgement.answer).encode()


@examples(90)
@given(st.one_of(words, json_texts))
def test_grids(text: str) -> None:
    with contextlib.suppress(MalformedGrid):
        assert max(from_text(text).shape) <= 30


@examples(100)
@given(json_texts)
def test_schemas(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        read_schema(text)


@examples(100)
@given(trees)
def test_what_a_server_says_of_completions(reply: Any) -> None:
    found = {"choices": [reply if isinstance(reply, dict) else {"text": reply}], "usage": {"completion_tokens": reply}}
    for read in (lambda said: read_completion(said, "http://x"), read_likely):
        with contextlib.suppress(Unavailable):
            read(found)


@pytest.mark.parametrize(
    "body",
    [
        "[" * 100_000, '{"a":' * 50_000, "null", "[]", '{"choices": 1e999}', '{"choices":[{"message":{"content":1}}]}',
        '{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1e999,"completion_tokens":-5}}',
        '{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":' + "9" * 4000 + "}}",
        '{"choices":[{"message":{"content":"\\ud800 x"}}]}', '{"choices":[{"message":{"content":"x"}}],"usage":"no"}',
    ],
)  # fmt: skip
async def test_a_hostile_model_server(body: str) -> None:
    class Hostile(HttpServer):
        def reply(self, path: str, body_: dict[str, Any]) -> Any:
            return 200, body

    async with serving(Hostile()) as url:
        endpoint = Endpoint(EndpointOptions(url=url, retries=0))
        try:
            with contextlib.suppress(Unavailable):
                said = await endpoint.chat({})
                said.text.encode()
                assert 0 <= said.prompt_tokens < 2**53
                assert 0 <= said.completion_tokens < 2**53
        finally:
            await endpoint.close()


async def test_a_model_server_that_never_stops_talking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealkit.endpoint._MOST_BYTES", 1 << 20)

    class Talker(HttpServer):
        def reply(self, path: str, body: dict[str, Any]) -> Any:
            return 200, "x" * (3 << 20)

    async with serving(Talker()) as url:
        endpoint = Endpoint(EndpointOptions(url=url, retries=0))
        with pytest.raises(Unavailable, match="more than 1 MiB"):
            await endpoint.chat({})
        await endpoint.close()


async def test_garbage_in_the_queue_stops_nobody() -> None:
    """Whoever can write to Redis: entries without a body, with bytes that are no text, of other streams."""
    redis = FakeRedis(decode_responses=True, encoding_errors="replace")
    queue = Queue("redis://x", consumer="c", client=redis)
    await queue.put("stream", ["runs/a/rounds/0/trials/good"])
    for fields in ({"nonsense": "1"}, {"body": b"\xff\xfe"}, {"body": ""}, {"body": "x" * 100_000}, {"body": "a\0b"}):
        await redis.xadd("seal:trials:stream", fields)
    await redis.sadd("seal:trials:streams", b"\xff", "", "../x")
    found = await queue.take({"stream": 10})
    assert [delivery.body for delivery in found][:2] == ["runs/a/rounds/0/trials/good", ""]
    assert len(found) == 6
    assert not [delivery for delivery in found if "\0" in delivery.body], "PostgreSQL cannot be asked for it"
    await queue.renew(found)
    assert len(await queue.bodies("stream")) == 5
    await queue.done(found)
    assert (await queue.depth(["stream"])).under_way == 0
    await queue.streams()
    await queue.close()
