"""What counts as a secret and what does not, and that no secret gets into what a run writes."""

import json
import logging
import subprocess
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import Mock

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sdx.cli import explain, main
from sdx.options.checks import print_error, secret_in
from sdx.process import secret
from sdx.process.failure import Failure
from sdx.process.secret import MaskingFormatter, clean, is_secret, scrub, scrub_all
from sdx.sweeps.job import RunFailed, RunJob
from tests.kit import forks
from tests.kit.tiny import tiny_model

HF, GITHUB, WANDB = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz", "ghp_0123456789abcdefABCDEF", "0123456789abcdef" * 2 + "01234567"
ENVIRONMENT = {
    "HF_TOKEN": "hf_abcdefghijklmnop",
    "WANDB_API_KEY": WANDB,
    "GITHUB_PAT": "open-sesame-42",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCY",
    "PGPASSWORD": "correcthorse",
    "DATABASE_URL": "postgresql://me:p%40ss-word-7@db.example.org:5432/x",
    "HTTPS_PROXY": "http://someone:hunter2hunter2@127.0.0.1:9",
}
"""Variable -> value."""
VALUES = (*list(ENVIRONMENT.values())[:5], "p%40ss-word-7", "p@ss-word-7", "hunter2hunter2")
"""The parts of it that must not be shown."""
TOKENS = (
    *(HF, GITHUB, "github_pat_11ABCDEFG0123456789abc", "glpat-0123456789abcdefghij", "xoxb-123456789012-abcdef"),
    *("sk-proj-0123456789abcdefghij", "sk-ant-api03-abcdefghijklmnop", "AKIAIOSFODNN7EXAMPLE"),
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLWhlcmU",
)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return ENVIRONMENT


@pytest.mark.parametrize(
    "name",
    [
        "WANDB_API_KEY",
        "HF_TOKEN",
        "apiKey",
        "aws_secret_access_key",
        "db.password",
        "token",
        "GITHUB_PAT",
        "PGPASSWORD",
    ],
)
def test_names_of_secrets(name: str):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("max_new_tokens", "micro_batch_tokens", "TOKENIZERS_PARALLELISM", "keep_groups", "KEYBOARD", "monkey"),
        *("PATH", "PYTHONPATH", "compat", "passes", "PWD"),
    ],
)
def test_other_names(name: str):
    assert not is_secret(name)


@pytest.mark.parametrize("method", main.options("method"))
def test_no_option_of_sdx_is_taken_for_a_secret(method: str):
    main.register()
    config = OmegaConf.to_container(explain.default_config([f"method={method}"]))
    assert clean(config) == config


def test_a_configuration_loses_its_secrets_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("SHORT_KEY", "1")
    given = {"a": {"token": "x", "rows": 11}, "paths": ["https://u:hf_abcdefgh@h", 1.5], "scale": {"max_new_tokens": 1}}
    kept = {"a": {"rows": 11}, "paths": ["https://u:[removed]@h", 1.5], "scale": {"max_new_tokens": 1}}
    assert clean(given) == kept
    assert scrub("11") == "11"


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_masked_wherever_they_stand(token: str):
    for text in (token, f"a {token}.", f"key={token}&x", f'{{"k": "{token}"}}', f"https://{token}@host/x"):
        assert token not in scrub(text)
        assert scrub(text).startswith(text.partition(token)[0])
    assert scrub_all({token: [(token, 1)]}) == {"[removed]": [["[removed]", 1]]}


def test_values_of_the_environment_are_masked(environment: Mapping[str, str]):
    text = scrub(" ".join([*VALUES, *ENVIRONMENT.values(), "key token password"]))
    assert not [value for value in VALUES if value in text]
    assert text.endswith("key token password")


@pytest.mark.parametrize(
    "text",
    [
        *("sk-SK", "task-with-a-very-long-name-of-2024", "sk-learn-and-other-libraries", "hf_cache", "eyJ.a.b", "ghp_"),
        *(
            "http://host:80/a@b",
            "https://host/x?a=1:2@3",
            "see http://a:1, or me@x.org",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        ),
        *("ssh://git@github.com/x/y", "key: value", "AKIAlias", "12:30://"),
    ],
)
def test_what_is_no_secret_stays(text: str, environment: Mapping[str, str]):
    assert scrub(text) == text


def test_the_path_of_a_file_with_a_secret_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path))
    monkeypatch.setenv("SSH_KEY", str(tmp_path / "gone"))
    assert scrub(f"{tmp_path}/x") == f"{tmp_path}/x"
    assert scrub(f"{tmp_path}/gone") == "[removed]"


REFUSED = {
    f"backbone.name={HF}": ("backbone.name", "hf_..."),
    f"tracking.group={GITHUB}": ("tracking.group", "ghp..."),
    "tracking.project=x-open-sesame-42": ("tracking.project", "GITHUB_PAT"),
    "tracking.project=${oc.env:GITHUB_PAT}": ("tracking.project", "GITHUB_PAT"),
    "tracking.entity=correcthorse": ("tracking.entity", "PGPASSWORD"),
    f"runs_dir=runs/{HF}": ("runs_dir", "hf_..."),
    "corpus.path=https://me:pw@host/x.jsonl": ("corpus.path", "URL with a password"),
    f"+hydra.job.env_set.MY_API_KEY={'0123456789abcdee' * 2}": ("hydra.job.env_set.MY_API_KEY", "MY_API_KEY"),
    f"filters.answers=[{HF}]": ("filters.answers.0", "hf_..."),
}


@pytest.mark.parametrize("override", REFUSED)
def test_an_option_that_holds_a_secret_is_refused_by_its_name(override: str, environment: Mapping[str, str]):
    main.register()
    with initialize_config_dir(str(main.CONF), version_base="1.3"):
        config = compose("config", overrides=[override], return_hydra_config=True)
    why = secret_in(config)
    assert why
    assert why.startswith(REFUSED[override][0] + " ")
    assert REFUSED[override][1] in why
    assert not [value for value in (*VALUES, HF, GITHUB, "me:pw", "0123456789abcdee") if value in why]


@pytest.mark.parametrize(
    "hydra",
    [
        {"overrides": {"task": [f"backbone.name=a,{HF}"]}},
        {"launcher": {"setup": [f"export HF_TOKEN={HF}"]}},
        {"launcher": {"setup": [f"export WANDB_API_KEY={WANDB}"]}},
        {"sweeper": {"params": {"tracking.group": f"x,{GITHUB}"}}},
    ],
)
def test_options_of_the_launcher_are_checked_too(hydra: dict[str, object]):
    assert secret_in(OmegaConf.create({"a": 1, "hydra": hydra}))


@pytest.mark.parametrize(
    "hydra",
    [
        {"launcher": {"setup": ["export HF_TOKEN=$(cat ~/.token)", "export WANDB_API_KEY=$KEY"]}},
        {"job": {"env_set": {"HF_TOKEN": "${oc.env:HF_TOKEN}"}}},
        {"launcher": {"setup": ["export TOKENIZERS_PARALLELISM=disabled"]}},
    ],
)
def test_an_option_may_take_a_secret_from_the_environment(hydra: dict[str, object], environment: Mapping[str, str]):
    assert secret_in(OmegaConf.create({"a": "${oc.env:HOME}", "hydra": hydra})) is None


def test_the_default_configuration_is_taken(environment: Mapping[str, str]):
    main.register()
    with initialize_config_dir(str(main.CONF), version_base="1.3"):
        assert secret_in(compose("config", return_hydra_config=True)) is None


def test_logs_and_errors_are_masked(tmp_path: Path, environment: Mapping[str, str], capsys: pytest.CaptureFixture[str]):
    try:
        raise ValueError(f"cannot reach {ENVIRONMENT['HTTPS_PROXY']} with {HF}")
    except ValueError as error:
        record = logging.LogRecord(
            "sdx", logging.ERROR, "", 1, "%s", (WANDB,), (ValueError, error, error.__traceback__)
        )
        Failure(tmp_path).report(error)
        secret.print_exception(error)
    print_error(f"lang={HF}")
    out, err = capsys.readouterr()
    texts = [MaskingFormatter("%(message)s").format(record), (tmp_path / "error.txt").read_text(), out + err]
    for text in texts:
        assert "ValueError" in text
        assert not [value for value in (*VALUES, HF) if value in text]


def test_submitit_gets_no_secret(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    import submitit.helpers

    def fails() -> None:
        raise ValueError(f"no access with {HF}")

    monkeypatch.setattr(submitit.helpers, "TorchDistributedEnvironment", Mock)
    monkeypatch.setattr(main, "main", fails)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(RunFailed, match=r"ValueError: no access with \[removed\]"):
        RunJob([], tmp_path, 1.0, None, None)()
    assert "no access with [removed]" in capsys.readouterr().err


def occurs(path: Path, values: tuple[str, ...]) -> list[str]:
    """Files below a directory with one of the values in their bytes or their names."""
    return [
        str(file)
        for file in path.rglob("*")
        for value in values
        if value in str(file) or (file.is_file() and value.encode() in file.read_bytes())
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and instructions that each contain a token and a secret of the environment."""
    path = tmp_path_factory.mktemp("place")
    tiny_model(path / "tiny")
    rows = [{"instruction": f"Use {HF} {n} times.", "answer": f"{n} times correcthorse."} for n in range(12)]
    (path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    given = (
        *("method=sft", "corpus=file", "corpus.path=mine.jsonl", "backbone=path", "backbone.path=tiny", "lang=pt"),
        *("task=instructions", "scale.corpus_rows=0", "scale.heldout_rows=4", "scale.max_new_tokens=8"),
        *("scale.max_length_tokens=200", "train.batch_size=4", "engine.precision=fp32", "generator.precision=fp32"),
        *("cache_dir=cache", "tracking=none"),
    )
    ordered = sorted((*given, *arguments), key=lambda argument: argument != "-m")  # Hydra wants it first
    return forks.sdx(*ordered, cwd=place, environment=ENVIRONMENT)


def test_no_file_of_a_finished_run_has_a_secret_that_it_met(place: Path):
    done = run(place, "runs_dir=runs")
    assert done.returncode == 0, done.stderr
    [directory] = (place / "runs").iterdir()
    assert not occurs(place / "runs", (*VALUES, HF))
    for name in ("report.md", "samples.jsonl"):
        assert "[removed]" in (directory / name).read_text()
    assert not [value for value in (*VALUES, HF) if value in done.stdout + done.stderr]


def test_no_file_of_a_failed_run_has_a_secret_that_it_met(place: Path):
    (place / "bad.jsonl").write_text('{"instruction": "x", "answer": "y", "' + HF + '": 1}\n' * 2)
    done = run(place, "runs_dir=failed", "corpus.columns.answer=none")
    assert done.returncode == 2
    done = run(place, "runs_dir=failed", "corpus.path=bad.jsonl", "corpus.columns.answer=none")
    assert done.returncode == 2
    assert "[removed]" in done.stderr
    assert len(list((place / "failed").iterdir())) == 2
    assert not occurs(place / "failed", (*VALUES, HF))
    assert HF not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [(f"backbone.name={HF}",), ("-m", "seed=1,2", f"tracking.group={GITHUB}")])
def test_a_refused_run_leaves_nothing(place: Path, arguments: tuple[str, ...]):
    done = run(place, "runs_dir=refused", *arguments)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("sdx: ")]
    assert "looks like a secret" in line
    assert not [value for value in (HF, GITHUB) if value in done.stdout + done.stderr]
    assert not (place / "refused").exists()
