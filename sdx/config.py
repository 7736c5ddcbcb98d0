"""The typed schema of a run. Default values live only here; conf/*.yaml records choices.

Below `sdx.cli.main` only these dataclasses exist, never a DictConfig. A field that decides a result is part of the keys
of the steps that read it (see `sdx.store.store`); a field about places or display never is.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import II, MISSING

from sdx.languages import targets
from sdx.options import fields
from sdx.options.source import FileSource, Source

NEUTRAL_KEYS = ("cache_dir", "runs_dir", "tracking", "plan", "stages", "workers")
"""Parts of a configuration that affect no result."""


class Precision(str, Enum):
    """Arithmetic of forward and backward; the optimizer keeps fp32 master weights in both."""

    auto = "auto"
    """bf16 if the hardware supports it, else fp32; `sdx.models.precision` replaces it at the start of a run."""
    bf16 = "bf16"
    fp32 = "fp32"
    int8 = "int8"
    """Weights in 8 bits: only translators with `runtime=ctranslate2`, which on a CPU are fastest with them."""


class Runtime(str, Enum):
    """The library that runs a translation model."""

    auto = "auto"
    """CTranslate2 if it is installed; `sdx.models.precision` replaces it at the start of a run."""
    ctranslate2 = "ctranslate2"
    transformers = "transformers"


class Adapter(str, Enum):
    """Which weights are trained."""

    full = "full"
    lora = "lora"


class Optimizer(str, Enum):
    """AdamW's two moments in fp32, or in 8 bits each by bitsandbytes (arXiv 2110.02861)."""

    adamw = "adamw"
    adamw_8bit = "adamw_8bit"


class Schedule(str, Enum):
    """How the learning rate falls after the warm-up."""

    cosine = "cosine"
    linear = "linear"


class TemplateKind(str, Enum):
    """The form of a prompt: the model's own chat template, or the plain instruction template."""

    auto = "auto"
    chat = "chat"
    instruction = "instruction"


class Stages(str, Enum):
    """How much of a run is run."""

    all = "all"
    """Data, training, evaluation, report."""
    prepare = "prepare"
    """Only what training and evaluation read: downloads, generation, translation, mixtures."""


class TrackingMode(str, Enum):
    """`auto`: online with a wandb key in the environment or in ~/.netrc, else offline. Without an answer of the server,
    an online run goes offline."""

    auto = "auto"
    online = "online"
    offline = "offline"


@dataclass
class MethodConfig:
    """What every method has. Each method's own options are in its module in `sdx/methods/`."""

    _target_: str = MISSING
    """The class in `sdx.methods` that builds the steps."""
    name: str = fields.name()
    """The method's name in run directories and tables."""


@dataclass
class NamedConfig:
    name: str = fields.name()
    """Short name in run directories and tables."""


@dataclass
class ShapeConfig:
    """A model's size for `plan=true` before the model is downloaded; 0: read from its config.json."""

    parameters: int = fields.number(0, at_least=0, at_most=10**14)
    """Weights, embeddings included."""
    layers: int = fields.number(0, at_least=0, at_most=10_000)
    """Transformer blocks."""
    hidden_size: int = fields.number(0, at_least=0, at_most=10**6)
    """Width of the residual stream."""
    intermediate_size: int = fields.number(0, at_least=0, at_most=10**7)
    """Width of the feed-forward network."""
    kv_width: int = fields.number(0, at_least=0, at_most=10**6)
    """Width of the keys, and of the values: key-value heads times the size of a head."""
    vocab_size: int = fields.number(0, at_least=0, at_most=10**8)
    """Rows of the embedding matrix."""


@dataclass
class BackboneConfig(NamedConfig, Source):
    """The LLM: exactly one of `asset`, `hub_id` and `path`."""

    asset: str | None = None
    """Name of packaged weights, see `sdx.offline.assets`."""
    adapters: list[str] = field(default_factory=list)
    """PEFT adapters to merge into the LLM, in this order: each a directory, or a repository on the hub as `owner/name@`
    and the 40 hexadecimal digits of a commit."""
    template: TemplateKind = TemplateKind.auto
    """`auto`: the tokenizer's chat template if it has one, else the instruction template."""
    learning_rate: float = fields.number(2e-5, above=0, at_most=1)
    """Peak learning rate for training all weights of a model of this size. Ours."""
    context_tokens: int = fields.number(2048, at_least=1, at_most=10**7)
    """The longest input, in tokens; never more than the model's own limit."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """For `plan=true`."""


@dataclass
class EncoderConfig(NamedConfig, Source):
    """The multilingual encoder of a stack (or its encoder-decoder): exactly one of `asset`, `hub_id` and `path`."""

    asset: str | None = None
    """Name of packaged weights, see `sdx.offline.assets`."""
    prefix: str = ""
    """Prepended to every text, as in the encoder's own training."""
    characters: bool = True
    """Whether the tokenizer knows the characters of each token; for a `path`, read from the files."""
    parameters: int = fields.number(0, at_least=0, at_most=10**14)
    """Weights, for `plan=true` before the download; 0: read from the files."""


@dataclass
class TextConfig(NamedConfig, Source):
    """English text to align a stack on: exactly one of `asset`, `path` and `hub_id`.

    `path` is a .jsonl, .json, .csv or .tsv file (each also with .gz), or .parquet; a dataset on the hub is read only as
    far as needed.
    """

    asset: str | None = None
    """Packaged texts, see `sdx.offline.assets`."""
    subset: str | None = None
    """Configuration of the dataset on the hub, such as `sample-10BT`."""
    column: str = "text"
    """The column with the text."""


@dataclass
class LangConfig:
    """Source language L and target languages T, from the options `source` and `lang`."""

    source: str = "en"
    """As the user wrote it."""
    targets: dict[str, str] = field(default_factory=dict)
    """Code -> FLORES code."""


@dataclass
class TranslatorConfig:
    """An engine that translates texts. Its own options are in its module in `sdx/translation/`."""

    _target_: str = MISSING
    """The class in `sdx.translation`."""
    name: str = fields.name()
    """Short name, shown with every machine-translated text."""


@dataclass
class GeneratorConfig:
    """An engine that completes prompts."""

    _target_: str = MISSING
    """The class in `sdx.generation`."""
    batch_size: int | None = fields.number(None, at_least=1, at_most=10**6)
    """Most prompts completed at once; null: 32 on a CPU, on a GPU as many as its memory holds. Ours."""
    precision: Precision = Precision.auto
    """Arithmetic of the forward pass."""
    temperature: float = fields.number(0.0, at_least=0, at_most=100)
    """Of the answers that a method trains on, by which logits are divided; 0: greedy. Evaluation and translation are
    always greedy."""
    top_p: float = fields.number(1.0, above=0, at_most=1)
    """Draw from the most probable tokens that reach this probability together."""
    top_k: int = fields.number(0, at_least=0, at_most=10**6)
    """Draw from this many most probable tokens; 0: from all."""
    repetition_penalty: float = fields.number(1.0, above=0, at_most=100)
    """Above 1, tokens that prompt or answer have already become less probable."""
    answers: int = fields.number(1, at_least=1, at_most=1000)
    """Answers to each question; several need a temperature above 0."""


@dataclass
class CorpusColumns:
    """Columns of the file; a dot goes into a nested object, as in `turns.0`."""

    instruction: str = "instruction"
    """The instruction."""
    input: str | None = None
    """A text that the instruction is about, appended after a blank line; none without such a column."""
    answer: str = "answer"
    """The gold answer."""
    id: str | None = None
    """A unique name of the row; none: the hash of its instruction."""


@dataclass
class CorpusConfig(NamedConfig, FileSource):
    """Instructions in L. Only the baselines and the held-out references use the gold answers.

    At most one of `path` and `hub_id`; without either, the corpus shipped with sdx. `path` is a .jsonl, .json, .csv or
    .tsv file (each also with .gz), or .parquet. `{language}` in it or in `file` stands for the source's code.
    """

    language: str | None = fields.language()
    """Language of the corpus, any code of languages.csv; none: `source`."""
    columns: CorpusColumns = field(default_factory=CorpusColumns)
    rows: int = fields.number(0, at_least=0, at_most=10**9)
    """Approximate number of rows, for `plan=true` before the download; 0: unknown."""


@dataclass
class ParallelColumns:
    """Columns of the two sides. `{source}` and `{target}` stand for the languages' codes."""

    source: str = "source"
    """The sentence in L."""
    target: str = "target"
    """The sentence in T."""


@dataclass
class ParallelConfig(NamedConfig, FileSource):
    """Sentence pairs in L and T: translation data to train on, demonstrations, word pairs.

    At most one of `asset`, `path` and `hub_id`; without any, no parallel corpus. `path` is a .tsv, .csv, .jsonl or
    .json file (each also with .gz), or .parquet, or the two files of a Moses corpus that end in `{language}`.
    `{source}`, `{target}` and `{pair}` in it or in `file` stand for codes.
    """

    asset: str | None = None
    """Packaged data, see `sdx.offline.assets`."""
    columns: ParallelColumns = field(default_factory=ParallelColumns)


@dataclass
class DictionaryConfig(NamedConfig):
    """Words of L with their translations in T, for code-switching. At most one of `asset` and `path`."""

    asset: str | None = None
    """Packaged dictionaries, see `sdx.offline.assets`."""
    path: str | None = fields.path()
    """File in MUSE's format: a word and its translation per line; `{source}` and `{target}` stand for codes."""
    from_parallel: bool = False
    """Take word pairs from the parallel corpus."""


ANSWER_FILTERS = ("empty", "truncated", "repetition", "short", "long", "wrong_language", "refusal")
TRANSLATION_FILTERS = ("empty", "copied", "repetition", "short", "long", "length_ratio", "wrong_language")
TASK_FILTERS = ("final_number", "answer_span")


@dataclass
class FilterConfig:
    """Reasons to drop a synthetic row, see `sdx.data.filters`. `[]` keeps all rows. All of it is ours."""

    answers: list[str] = field(default_factory=lambda: list(ANSWER_FILTERS), metadata=fields.among(ANSWER_FILTERS))
    """For the backbone's own answers."""
    translations: list[str] = field(
        default_factory=lambda: ["empty", "copied", "repetition", "length_ratio", "wrong_language"],
        metadata=fields.among(TRANSLATION_FILTERS),
    )
    """For machine-translated instructions and answers."""
    tasks: list[str] = field(default_factory=lambda: list(TASK_FILTERS), metadata=fields.among(TASK_FILTERS))
    """For translated fields of labelled tasks, beside `translations`: a worked answer must keep its number, and a
    context its answer."""
    min_letters: int = fields.number(1, at_least=1, at_most=10**9)
    """`short`: fewer letters and digits than this."""
    max_letters: int = fields.number(8000, at_least=1, at_most=10**9)
    """`long`: more letters and digits than this."""
    length_ratio: float = fields.number(3.0, above=1, at_most=1000)
    """`length_ratio`: a translation this many times longer or shorter than its source, adjusted for scripts."""


@dataclass
class TaskConfig:
    """One benchmark. `task=arc_easy`, `task=[arc_easy,mmlu_human]` and `task=offline` fill the dict of them."""

    _target_: str = MISSING
    """The class in `sdx.tasks.base`."""
    shots: int = fields.number(0, at_least=0, at_most=1000)
    """Solved examples before each question."""


@dataclass
class EngineConfig(NamedConfig):
    """DeepSpeed: the layout of training on the hardware. Only `precision` changes the result.

    `sdx.training.layout` chooses null values by the model's size, the number of ranks and their memory.
    """

    zero_stage: int | None = fields.number(None, at_least=0, at_most=3)
    """0: replicated; 1: optimizer state sharded over the ranks; 2: gradients too; 3: weights too."""
    offload_optimizer: bool | None = None
    """Keep optimizer state and its step on the CPU (ZeRO 1-3)."""
    precision: Precision = Precision.auto
    """Arithmetic of training, of scores and of the inputs of a stack."""
    micro_batch_tokens: int | None = fields.number(None, at_least=1, at_most=10**8)
    """Most tokens per rank in a forward pass; gradients are accumulated over the batch."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: bool | None = None
    """Compile the model's layers: half a minute at the start, faster from then on."""


@dataclass
class ScaleConfig(NamedConfig):
    """Row counts and steps in one place."""

    corpus_rows: int = fields.number(0, at_least=0, at_most=10**9)
    """Instructions to train on; 0 takes all that the held-out rows leave."""
    parallel_rows: int = fields.number(0, at_least=0, at_most=10**9)
    """Sentence pairs for each target language; 0 takes all."""
    text_rows: int = fields.number(2000, at_least=0, at_most=10**9)
    """English texts to align a stack on."""
    heldout_rows: int = fields.number(48, at_least=0, at_most=10**9)
    """Instructions kept out of training, for the answer-language rate and chrF++."""
    validation_rows: int = fields.number(0, at_least=0, at_most=10**9)
    """Questions and sentence pairs, with all their versions, moved from the training mix to validation; the model with
    the smallest loss on them is kept. 0: no validation, and the last model is kept. Ours."""
    max_new_tokens: int = fields.number(128, at_least=1, at_most=10**6)
    """Longest generated answer, in tokens."""
    max_length_tokens: int = fields.number(384, at_least=1, at_most=10**7)
    """Longest training example, prompt and response, in tokens; longer ones are dropped and counted."""
    epochs: int = fields.number(1, at_least=1, at_most=1000)
    """Passes over the training mix."""
    max_steps: int = fields.number(0, at_least=0, at_most=10**9)
    """Most optimizer steps; 0: no limit."""
    batch_size: int = fields.number(128, at_least=1, at_most=10**6)
    """Examples per optimizer step."""
    eval_items: int = fields.number(0, at_least=0, at_most=10**9)
    """Questions per benchmark and language; 0 takes all."""


@dataclass
class TrainConfig:
    """Optimisation, the same for every method: a difference between two runs is then the method's."""

    adapter: Adapter = Adapter.full
    """Train all weights, or LoRA adapters on all linear layers (merged into the export)."""
    lora_rank: int = fields.number(16, at_least=1, at_most=10**5)
    """Rank of the adapters. Ours."""
    lora_alpha: int = fields.number(32, at_least=1, at_most=10**6)
    """Scale of the adapters. Ours."""
    lora_dropout: float = fields.number(0.05, at_least=0, below=1)
    """Dropout before the adapters. Ours."""
    batch_size: int = fields.number(II("scale.batch_size"), at_least=1, at_most=10**6)
    """Examples per optimizer step, over all ranks and micro-batches; by default the scale's."""
    optimizer: Optimizer = Optimizer.adamw
    """8-bit moments save 6 of 18 bytes per trained weight on a GPU, nothing on a CPU; they need the extra `8bit`."""
    learning_rate: float = fields.number(II("backbone.learning_rate"), above=0, at_most=1)
    """Peak learning rate of AdamW; by default the backbone's. LoRA needs about ten times as much. Ours."""
    warmup_ratio: float = fields.number(0.05, at_least=0, at_most=1)
    """Share of the steps with a linear rise from 0. Ours."""
    schedule: Schedule = Schedule.cosine
    """How the learning rate falls from its peak to the end. Ours."""
    final_ratio: float = fields.number(0.1, at_least=0, at_most=1)
    """Learning rate at the end of the decay, as a share of the peak. Ours."""
    keep_groups: bool = True
    """Shuffle groups of rows, such as the versions of one question, instead of rows, so that they share a batch."""
    weight_decay: float = fields.number(0.0, at_least=0, at_most=10)
    """AdamW's decoupled decay. Ours."""
    max_grad_norm: float = fields.number(1.0, above=0, at_most=10**9)
    """Gradients are clipped to this global norm."""
    save_every_minutes: float = fields.number(15.0, at_least=0, at_most=10**6)
    """Minutes between checkpoints; 0: none by the clock. A checkpoint has 12 bytes per trained weight. Ours."""
    save_every_steps: int = fields.number(0, at_least=0, at_most=10**9)
    """Optimizer steps between checkpoints, in addition to those by the clock; 0: none by steps."""
    log_every_steps: int = fields.number(1, at_least=1, at_most=10**9)
    """Optimizer steps between log lines."""
    validations: int = fields.number(4, at_least=1, at_most=1000)
    """Number of validation passes, evenly spaced over the training; the best model is kept. Ignored without validation
    data. Ours."""


@dataclass
class TrackingConfig:
    """Where metrics go beside the run directory. An error of tracking never ends a run."""

    _target_: str | None = None
    """The class in `sdx.tracking`; none: no tracking."""
    mode: TrackingMode = TrackingMode.auto
    """wandb's, see `TrackingMode`."""
    project: str = fields.line("sdx")
    """wandb project."""
    entity: str | None = fields.line()
    """wandb entity; none: the account's default."""
    group: str | None = fields.line()
    """wandb group, the study's name; none: the experiment's name, else method and languages."""


@dataclass
class Config:
    """One study run."""

    method: MethodConfig = MISSING
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    lang: Any = field(default="pt", metadata=fields.LANGUAGES)
    """Targets T: `lang=th`, `lang=[th,sw]` or a set of language_sets.yaml, `lang=stt4`. Becomes a `LangConfig`."""
    source: str = fields.language("en")
    """Source language L, the resource-rich language: any code of languages.csv."""
    translator: TranslatorConfig = MISSING
    mt: TranslatorConfig | None = None
    """Translator of test items and of self-translation's baseline, `translator@mt=nllb_600m`; none: `translator`."""
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    dictionary: DictionaryConfig = field(default_factory=DictionaryConfig)
    filters: FilterConfig = field(default_factory=FilterConfig)
    task: dict[str, TaskConfig] = field(default_factory=dict, metadata=fields.NAMES)
    engine: EngineConfig = field(default_factory=EngineConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    stages: Stages = Stages.all
    """`prepare` stops before training, for nodes without GPUs; the same command without it continues."""
    workers: str = fields.line("1")
    """Processes on this machine that make the data and the scores, one a GPU: a number, or `ray` for a Ray cluster. One
    of them trains. With several ranks, the ranks are the workers."""
    plan: bool = False
    """Print what the run would do, need and take, and stop."""
    seed: int = fields.number(1, at_least=0, at_most=fields.SEED)
    """Seed of data order, mixing, dropout and adapters."""
    cache_dir: str = fields.path(MISSING)
    """Assets, converted models and step outputs, shared between runs; by default the environment's SDX_CACHE."""
    runs_dir: str = fields.path("runs")
    """Run directories: reports, logs, samples."""

    def __post_init__(self) -> None:
        if not isinstance(self.lang, LangConfig):
            self.lang = LangConfig(self.source, targets(self.lang))
