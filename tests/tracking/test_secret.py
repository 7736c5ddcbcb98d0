"""What counts as a secret, and that nothing else is taken for one."""

import pytest

from sdx.tracking.secret import clean, is_secret, scrub


@pytest.mark.parametrize(
    "name", ["WANDB_API_KEY", "HF_TOKEN", "apiKey", "aws_secret_access_key", "db.password", "token"]
)
def test_names_of_secrets(name: str):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name", ["max_new_tokens", "micro_batch_tokens", "TOKENIZERS_PARALLELISM", "keep_groups", "KEYBOARD", "monkey"]
)
def test_other_names(name: str):
    assert not is_secret(name)


def test_a_configuration_loses_its_secrets_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh")
    monkeypatch.setenv("SHORT_KEY", "1")
    given = {"a": {"token": "x", "rows": 11}, "paths": ["https://u:hf_abcdefgh@h", 1.5], "scale": {"max_new_tokens": 1}}
    kept = {"a": {"rows": 11}, "paths": ["https://u:[removed]@h", 1.5], "scale": {"max_new_tokens": 1}}
    assert clean(given) == kept
    assert scrub("11") == "11"
