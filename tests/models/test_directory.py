"""Broken model directories: each is one line, before anything is loaded, that says which file, what is wrong and what
to do."""

import ast
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sdx import InputError
from sdx.config import BackboneConfig, EncoderConfig, Precision, TemplateKind
from sdx.models import backbone, rendering
from sdx.stacking import encoder
from sdx.translation.seq2seq import Seq2Seq
from tests.kit.tiny import CHATML, tiny_encoder, tiny_model, tiny_nllb

pytestmark = pytest.mark.whole

ROOT = Path(__file__).parents[2]
LOADERS = ("from_pretrained", "from_config", "HFLM")
"""Calls that take `trust_remote_code`."""
UNSAFE = ("trust_remote_code=True", "weights_only=False")
OWN = re.compile(r"(model\.)?Stack(Config|Model)|super\(\)|PeftModel")
"""Classes of sdx, which load no code."""
Break = Callable[[Path], object]
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
CONFIG, INDEX, SHARD = "config.json", "model.safetensors.index.json", "model-00002-of-00003.safetensors"


LOOP = "{% for _ in range(100000) %}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`sharded` is `whole` in three files."""
    from transformers import LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models")
    whole = tiny_model(folder / "whole")
    sharded = shutil.copytree(whole, folder / "sharded")
    (sharded / "model.safetensors").unlink()
    LlamaForCausalLM.from_pretrained(whole).save_pretrained(sharded, max_shard_size="220KB")
    assert (sharded / SHARD).exists(), list(sharded.iterdir())
    return {
        "whole": whole,
        "sharded": sharded,
        "nllb": tiny_nllb(folder / "nllb"),
        "bert": tiny_encoder(folder / "bert", "bert"),
        "marian": tiny_encoder(folder / "marian", "marian"),
    }


def examine(path: Path) -> None:
    """What `plan=true` and a run do first."""
    config = BackboneConfig(name="mine", path=str(path))
    backbone.check(config)
    backbone.backbone_step(config).check()


def examine_encoder(path: Path) -> None:
    encoder.encoder_step(EncoderConfig(name="mine", path=str(path))).check()


def examine_translator(path: Path) -> None:
    Seq2Seq(None, None, str(path), None, Precision.fp32, 4).needs("eng_Latn", "tha_Thai")["translator"].check()


def content(name: str, data: bytes | str) -> Break:
    return lambda path: (path / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def gone(*names: str) -> Break:
    return lambda path: [(path / name).unlink() for name in names]


def cut(name: str, size: int) -> Break:
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:size])


def edited(name: str, **changes: Any) -> Break:
    """Another value of a JSON object; `...` takes it out."""

    def change(path: Path) -> None:
        found = json.loads((path / name).read_text()) | changes
        (path / name).write_text(json.dumps({key: value for key, value in found.items() if value is not ...}))

    return change


def template(text: str) -> Break:
    return content("chat_template.jinja", text)


def instead(*files: str) -> Break:
    """Other files in place of the weights."""

    def change(path: Path) -> None:
        for weights in path.glob("*.safetensors"):
            weights.unlink()
        for file in files:
            (path / file).write_bytes(b"{}")

    return change


def without(weight: str) -> Break:
    def change(path: Path) -> None:
        from safetensors.numpy import load_file, save_file

        weights = load_file(path / "model.safetensors")
        del weights[weight]
        save_file(weights, path / "model.safetensors", {"format": "pt"})

    return change


def more_tokens(path: Path) -> None:
    """As somebody has done who forgot to resize the model."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens(["สวัสดี"])
    tokenizer.save_pretrained(path)


def adapter(path: Path) -> None:
    instead("adapter_config.json", "adapter_model.safetensors")(path)


@dataclass(frozen=True)
class Case:
    name: str
    breaks: Break
    says: tuple[str, ...]
    model: str = "whole"


JUNK = "copy it again"
CASES = [
    # Weights.
    Case("cut off", cut("model.safetensors", 200_000), ("model.safetensors has 200,000 bytes of 503,144 bytes", JUNK)),
    Case("cut off in the header", cut("model.safetensors", 300), ("model.safetensors has 300 bytes", "header", JUNK)),
    Case("cut off at once", cut("model.safetensors", 5), ("model.safetensors (5 bytes) is no safetensors", JUNK)),
    Case(
        "longer", lambda path: (path / "model.safetensors").open("ab").write(b"0" * 99), ("model.safetensors has", JUNK)
    ),
    Case("empty", content("model.safetensors", b""), ("model.safetensors is empty", JUNK)),
    Case(
        "zeros", content("model.safetensors", bytes(5000)), ("model.safetensors (5,000 bytes) is no safetensors", JUNK)
    ),
    Case(
        "header of junk", content("model.safetensors", b"\2" + bytes(7) + b"{]" + bytes(9)), ("no sound safetensors",)
    ),
    Case("a web page", content("model.safetensors", "<!DOCTYPE html>"), ("model.safetensors is a web page", JUNK)),
    Case("a pointer", content("model.safetensors", LFS), ("model.safetensors is a pointer of Git LFS", "git lfs pull")),
    Case(
        "a pickle", content("model.safetensors", b"PK\3\4" + bytes(999)), ("model.safetensors", "no safetensors file")
    ),
    Case("pickles only", instead("pytorch_model.bin"), ("pickle only (pytorch_model.bin)", "save_pretrained(NEW)")),
    Case("no weights", instead(), ("has no weights", "copy model.safetensors")),
    Case("GGUF only", instead("m.Q4.gguf"), ("no weights but GGUF (m.Q4.gguf)", "give the safetensors")),
    Case("another name", instead("consolidated.safetensors"), ("no weights", "but consolidated.safetensors", "copy")),
    Case("an adapter", adapter, ("has an adapter instead of weights", "merge_and_unload")),
    Case("shards without index", gone(INDEX), ("its index, *.index.json, is not; copy that",), "sharded"),
    Case("a missing shard", gone(SHARD), (f"{SHARD}, which {INDEX} names", JUNK), "sharded"),
    Case("a shard cut off", cut(SHARD, 90_000), (f"{SHARD} has 90,000 bytes of 214,664 bytes", JUNK), "sharded"),
    Case(
        "a list as index", content(INDEX, "[]"), (f"{INDEX} cannot be read: it holds no JSON object", JUNK), "sharded"
    ),
    Case("an empty index", content(INDEX, "{}"), (f"{INDEX} has no weight_map", JUNK), "sharded"),
    Case("an index of numbers", edited(INDEX, weight_map={"a": 1}), (f"{INDEX} has no weight_map", JUNK), "sharded"),
    Case("an index cut off", cut(INDEX, 50), (f"{INDEX} cannot be read: it is no JSON", JUNK), "sharded"),
    Case(
        "shards elsewhere",
        edited(INDEX, weight_map={"a": "../x.safetensors"}),
        (INDEX, "'../x.safetensors'"),
        "sharded",
    ),
    Case("shards of another kind", edited(INDEX, weight_map={"a": CONFIG}), (INDEX, f"'{CONFIG}'"), "sharded"),
    Case("a missing weight", without("model.norm.weight"), ("lacks 1 weights", "config.json", "model.norm.weight")),
    # config.json.
    Case("no config", gone(CONFIG), ("has no config.json",)),
    Case("an empty config", content(CONFIG, ""), ("config.json cannot be read: it is empty", JUNK)),
    Case("a config of spaces", content(CONFIG, "  \n"), ("config.json cannot be read: it is empty", JUNK)),
    Case("a config cut off", cut(CONFIG, 90), ("config.json cannot be read: it is no JSON", JUNK)),
    Case("a list as config", content(CONFIG, "[]"), ("config.json cannot be read: it holds no JSON object, but []",)),
    Case("null as config", content(CONFIG, "null"), ("config.json cannot be read: it holds no JSON object, but null",)),
    Case("a nested config", content(CONFIG, "[" * 99999), ("config.json cannot be read", JUNK)),
    Case("another encoding", content(CONFIG, '{"a": "ü"}'.encode("utf-16")), ("config.json", "not UTF-8", JUNK)),
    Case("a config that is a pointer", content(CONFIG, LFS), ("config.json", "git lfs pull")),
    Case("no type", edited(CONFIG, model_type=...), ("config.json names no model_type",)),
    Case("a type that is a list", edited(CONFIG, model_type=["llama"]), ("config.json names no model_type",)),
    Case("an unknown type", edited(CONFIG, model_type="lama5"), ("config.json", "'lama5'", "does not have; install")),
    Case(
        "own code",
        edited(CONFIG, model_type="mine", auto_map={"AutoConfig": "evil.Config"}),
        ("config.json", "'mine'", "(auto_map) is never run"),
    ),
    Case("another kind of model", edited(CONFIG, model_type="t5"), ("type t5, which is no causal LM",)),
    Case("quantised", edited(CONFIG, quantization_config={"quant_method": "gptq"}), ("quantised", "gptq", "made from")),
    Case("another width", edited(CONFIG, hidden_size=128), ("is stored as [400, 64]", "config.json asks for", "128]")),
    Case("fewer embeddings", edited(CONFIG, vocab_size=401), ("is stored as [400, 64]", "asks for [401, 64]")),
    Case("more layers", edited(CONFIG, num_hidden_layers=3), ("lacks 9 weights", "config.json", "model.layers.2")),
    Case("a word as number", edited(CONFIG, hidden_size="large"), ("config.json has hidden_size='large'", JUNK)),
    Case("a negative number", edited(CONFIG, num_hidden_layers=-2), ("config.json has num_hidden_layers=-2", JUNK)),
    Case("no heads", edited(CONFIG, num_attention_heads=0), ("cannot be loaded",)),
    Case("an odd activation", edited(CONFIG, hidden_act="gelu9"), ("cannot be loaded", "gelu9")),
    Case("an odd inner config", edited(CONFIG, text_config=3), ("config.json has text_config=3", JUNK)),
    Case("an odd generation config", content("generation_config.json", "[1"), ("generation_config.json cannot", JUNK)),
    # The tokenizer.
    Case("no tokenizer", gone("tokenizer.json"), ("has no tokenizer",)),
    Case("an empty tokenizer", content("tokenizer.json", "{}"), ("tokenizer.json describes no tokenizer", JUNK)),
    Case("a tokenizer cut off", cut("tokenizer.json", 2000), ("tokenizer.json cannot be read", JUNK)),
    Case("an odd tokenizer", edited("tokenizer.json", model={"type": "x"}), ("cannot be loaded",)),
    Case("a broken tokenizer config", content("tokenizer_config.json", "{"), ("tokenizer_config.json cannot", JUNK)),
    Case("a list as tokenizer config", content("tokenizer_config.json", "[]"), ("tokenizer_config.json cannot", JUNK)),
    Case("no end", edited("tokenizer_config.json", eos_token=...), ("no EOS token", "tokenizer_config.json")),
    Case("more tokens than embeddings", more_tokens, ("'สวัสดี' has the id 400", "resize_token_embeddings")),
    # The chat template.
    Case("template: syntax", template("{% for %}"), ("chat template", "line 1", "backbone.template=instruction")),
    Case("template: raises", template("{{ raise_exception('no, not so') }}"), ("chat template", "no, not so")),
    Case("template: unknown", template("{{ nothing.at_all }}"), ("chat template", "nothing", "template=instruction")),
    Case("template: includes", template("{% include '/etc/passwd' %}"), ("chat template", "fails", "correct it")),
    Case("template: private", template("{{ ''.__class__.__mro__ }}" + CHATML), ("chat template", "fails")),
    Case("template: nothing", template("{# nothing #}"), ("chat template", "leaves out what the user says")),
    Case("template: no answer", template("{{ messages[0].content }}"), ("leaves out what the model says",)),
    Case("template: chance", template("{{ range(10**5) | random }}" + CHATML), ("writes something else each time",)),
    Case("template: too long", template("{{ 'a' * 10**7 }}" + CHATML), ("writes 10,000,0", "letters")),
    Case("template: memory", template("{{ 'a' * 10**13 }}"), ("chat template", "memory")),
    Case("template: another encoding", content("chat_template.jinja", b"\xff"), ("chat_template.jinja", "not UTF-8")),
    Case("template: endless", template(f"{LOOP}{LOOP}{{% endfor %}}{{% endfor %}}"), ("not done after 1 s", "loop")),
    Case("template: endless without a loop", template("{{ 10 ** (10 ** 9) }}"), ("not done after 1 s",)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_is_one_line(case: Case, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rendering, "LIMIT_S", 1)
    if "endless" not in case.name:  # here, for a process of its own takes seconds
        monkeypatch.setattr(rendering, "_answer_of_process", rendering._answer)
    path = shutil.copytree(models[case.model], tmp_path / "my model ü")
    case.breaks(path)
    with pytest.raises(InputError) as error:
        examine(path)
    message = str(error.value)
    assert f"backbone.path={path}" in message
    assert "\n" not in message
    assert len(message) < 500
    for part in case.says:
        assert part in message


ALIKE = (
    "cut off in the header",
    "zeros",
    "a web page",
    "a pointer",
    "no config",
    "a list as config",
    "no type",
    "an unknown type",
)
"""What is no different in an encoder and a translator."""


@pytest.mark.parametrize(("model", "look"), [("bert", examine_encoder), ("nllb", examine_translator)])
@pytest.mark.parametrize("case", [case for case in CASES if case.name in ALIKE], ids=lambda case: case.name)
def test_encoders_and_translators(case: Case, model: str, look: Break, models: dict[str, Path], tmp_path: Path):
    path = shutil.copytree(models[model], tmp_path / "mine")
    case.breaks(path)
    with pytest.raises(InputError, match=rf"(encoder|translator)\.path={path}") as error:
        look(path)
    assert case.says[-1] in str(error.value) or "of type" in str(error.value)


def pickled(path: Path, new: bool = True) -> None:
    import torch
    from safetensors.torch import load_file

    weights = load_file(path / "model.safetensors")
    torch.save(weights, path / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    (path / "model.safetensors").unlink()


def pickled_cut(path: Path) -> None:
    pickled(path)
    cut("pytorch_model.bin", 3000)(path)


OTHERS = [
    ("bert", examine_encoder, edited(CONFIG, vocab_size=500), ("is stored as [", "asks for [500,")),
    ("bert", examine_encoder, without("embeddings.word_embeddings.weight"), ("lacks 1 weights",)),
    ("bert", examine_encoder, more_tokens, ("สวัสดี", "no embedding")),
    ("bert", examine_encoder, gone("tokenizer.json"), ("has no tokenizer",)),
    ("bert", examine_encoder, pickled_cut, ("pytorch_model.bin", "is cut off", JUNK)),
    ("nllb", examine_translator, pickled_cut, ("pytorch_model.bin", "is cut off", JUNK)),
    ("nllb", examine_translator, edited(CONFIG, d_model=64), ("is stored as [", "config.json asks for [")),
    ("nllb", examine_translator, without("model.decoder.layers.1.fc1.weight"), ("lacks 1 weights", "layers.1.fc1")),
    ("nllb", examine_translator, edited(CONFIG, eos_token_id=99999), ("eos_token_id=99999", "config.json")),
    ("nllb", examine_translator, edited("tokenizer.json", model={"type": "x"}), ("cannot be loaded",)),
]


@pytest.mark.parametrize(("model", "look", "breaks", "says"), OTHERS)
def test_what_is_wrong_with_an_encoder_or_translator_alone(
    model: str, look: Break, breaks: Break, says: tuple[str, ...], models: dict[str, Path], tmp_path: Path
):
    path = shutil.copytree(models[model], tmp_path / "mine")
    breaks(path)
    with pytest.raises(InputError, match=rf"(encoder|translator)\.path={path}") as error:
        look(path)
    assert all(part in str(error.value) for part in says), error.value
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    ("model", "look"), [("bert", examine_encoder), ("marian", examine_encoder), ("nllb", examine_translator)]
)
def test_pickles_of_encoders_and_translators_will_do(
    model: str, look: Break, new: bool, models: dict[str, Path], tmp_path: Path
):
    """The hub has some in no other format."""
    path = shutil.copytree(models[model], tmp_path / "mine")
    look(path)
    pickled(path, new)
    look(path)


@pytest.mark.parametrize("model", ["whole", "sharded"])
def test_a_whole_model_with_its_own_template(model: str, models: dict[str, Path]):
    """In a process of its own: what is sound passes there, too."""
    rendering._answer_of_process.cache_clear()
    examine(models[model])


def test_a_directory_that_is_none(models: dict[str, Path], tmp_path: Path):
    (tmp_path / "file").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name, says in (
        ("file", "is a file; give the directory"),
        ("link", "which is gone"),
        ("no", "has no config.json"),
    ):
        with pytest.raises(InputError, match=rf"backbone\.path={tmp_path / name} .*{says}"):
            examine(tmp_path / name)
    path = shutil.copytree(models["whole"], tmp_path / "copy")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").symlink_to("../../blobs/123")
    with pytest.raises(
        InputError, match=r"model\.safetensors is a link to \.\./\.\./blobs/123, which is gone; copy it"
    ):
        examine(path)


@pytest.mark.parametrize("path", ["a" * 300, "a\0b", "~nobody-of-this-name/model", "/dev/null", "loop"])
def test_paths_that_lead_nowhere(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises(InputError, match=r"backbone\.path="):
        backbone.check(BackboneConfig(name="mine", path=path))


def test_a_directory_that_nobody_may_read(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    """Root may read everything."""

    def forbidden(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", forbidden)
    with pytest.raises(InputError, match=r"backbone\.path=.* cannot be read \(.*Permission denied\)"):
        examine(models["whole"])


def test_a_broken_template_that_is_not_used(models: dict[str, Path], tmp_path: Path):
    path = shutil.copytree(models["whole"], tmp_path / "copy")
    template("{% for %}")(path)
    backbone.backbone_step(BackboneConfig("mine", path=str(path), template=TemplateKind.instruction)).check()


def test_a_directory_is_looked_at_again_when_it_changed(models: dict[str, Path], tmp_path: Path):
    path = shutil.copytree(models["whole"], tmp_path / "copy")
    config = BackboneConfig(name="mine", path=str(path))
    backbone.check(config)
    cut("model.safetensors", 100)(path)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        backbone.check(config)


def test_layers_of_different_width_are_no_fault(models: dict[str, Path], tmp_path: Path):
    path = shutil.copytree(models["whole"], tmp_path / "copy")
    edited(CONFIG, intermediate_size=[128, 128])(path)
    backbone.check(BackboneConfig(name="mine", path=str(path)))


def test_a_template_for_each_purpose(models: dict[str, Path], tmp_path: Path):
    path = shutil.copytree(models["whole"], tmp_path / "copy")
    (path / "chat_template.jinja").unlink()
    templates = [{"name": "default", "template": CHATML}, {"name": "tools", "template": "{% for %}"}]
    edited("tokenizer_config.json", chat_template=templates)(path)
    examine(path)


def own(file: Path, called: str) -> bool:
    """A call of a stack's own classes, or of PEFT, which loads weights alone."""
    owner = called.rpartition(".")[0]
    return bool(OWN.fullmatch(owner)) or (file.parent.name == "stacking" and owner.endswith("model_class"))


def test_no_call_runs_code_that_comes_with_a_model():
    """transformers asks on a terminal where it is not told, and a `y` runs the code."""
    found = 0
    for file in [file for folder in ("sdx", "benchmarks", "hydra_plugins") for file in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            assert not any(ast.unparse(key) in UNSAFE for key in node.keywords), f"{file}:{node.lineno}"
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in LOADERS and not own(file, ast.unparse(called)):
                found += 1
                assert "trust_remote_code=False" in map(ast.unparse, node.keywords), f"{file}:{node.lineno}"
    assert found > 5
