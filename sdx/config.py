"""The typed schema of a run. Default values live here and nowhere else; conf/*.yaml records choices.

Below `sdx.cli.main` only these dataclasses exist, never a DictConfig. A field that decides a result goes into the keys
of the steps that read it (see `sdx.store.store`); fields on where things lie or how they are shown never do.
This module imports nothing of sdx but `sdx.languages` and the fields and sources of `sdx.options`.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import II, MISSING

from sdx.languages import targets
from sdx.options import fields
from sdx.options.source import FileSource, Source


class Precision(str, Enum):
    """Arithmetic of forward and backward; the optimizer keeps fp32 master weights in both."""

    auto = "auto"
    """bf16 where the hardware computes in it, fp32 otherwise: `sdx.models.precision` decides it at the start of a run,
    and nothing after that meets it."""
    bf16 = "bf16"
    fp32 = "fp32"


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
    """How a prompt is written for the model: its own chat template, or the plain instruction template."""

    auto = "auto"
    chat = "chat"
    instruction = "instruction"


class Stages(str, Enum):
    """How much of a run is run."""

    all = "all"
    """Data, training, evaluation, report."""
    prepare = "prepare"
    """What training and evaluation read: downloads, generation, translation, mixtures. No training, no scores."""


class TrackingMode(str, Enum):
    """`auto`: online with a wandb key in the environment or in ~/.netrc, offline without. A server that does not answer
    makes an online run an offline one."""

    auto = "auto"
    online = "online"
    offline = "offline"


@dataclass
class MethodConfig:
    """What every method has. Each method's own options stand beside it in `sdx/methods/`."""

    _target_: str = MISSING
    """The class in `sdx.methods` that builds the steps."""
    name: str = fields.name()
    """The method's name in run directories and tables."""


@dataclass
class ShapeConfig:
    """A model's size as `plan=true` reckons with it before the model is there; 0: read from its config.json."""

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
class BackboneConfig(Source):
    """Where the LLM comes from: exactly one of `asset`, `hub_id` and `path`."""

    name: str = fields.name()
    """Short name in run directories and tables."""
    asset: str | None = None
    """Name of packaged weights, see `sdx.offline.assets`."""
    adapters: list[str] = field(default_factory=list)
    """Adapters in PEFT's format that are merged into it, one after the other: each a directory, or a repository on the
    hub with its commit, `owner/name@` and 40 hexadecimal digits."""
    template: TemplateKind = TemplateKind.auto
    """`auto` takes the tokenizer's chat template where it has one, the instruction template otherwise."""
    learning_rate: float = fields.number(2e-5, above=0, at_most=1)
    """Peak learning rate that suits training all weights of a model of this size. Ours."""
    context_tokens: int = fields.number(2048, at_least=1, at_most=10**7)
    """The longest input the model is given, in tokens. An upper bound is the model's own."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """For `plan=true`."""


@dataclass
class EncoderConfig(Source):
    """Where the multilingual encoder of a stack comes from: exactly one of `asset`, `hub_id` and `path`. Of an
    encoder-decoder, its encoder is taken."""

    name: str = fields.name()
    """Short name in tables."""
    asset: str | None = None
    """Name of packaged weights, see `sdx.offline.assets`."""
    prefix: str = ""
    """Put before every text, as in the encoder's own training."""
    characters: bool = True
    """Whether its tokenizer tells which characters a token is made of; of a `path` the files say it."""
    parameters: int = fields.number(0, at_least=0, at_most=10**14)
    """Weights, for `plan=true` before they are there; 0: read from its files."""


@dataclass
class TextConfig(Source):
    """English text to align a stack on: exactly one of `asset`, `path` and `hub_id`.

    `path` is a file of .jsonl, .json, .csv or .tsv, each also with .gz, or .parquet; a dataset on the hub is read from
    its beginning as far as needed.
    """

    name: str = fields.name()
    """Short name in tables."""
    asset: str | None = None
    """Packaged texts, see `sdx.offline.assets`."""
    subset: str | None = None
    """Of the dataset on the hub, its configuration: `sample-10BT`."""
    column: str = "text"
    """Which column holds the text."""


@dataclass
class LangConfig:
    """Source language L and target languages T, made of the options `source` and `lang`."""

    source: str = "en"
    """As the user wrote it."""
    targets: dict[str, str] = field(default_factory=dict)
    """Code -> FLORES code."""


@dataclass
class TranslatorConfig:
    """An engine that translates texts. Its own options stand beside it in `sdx/translation/`."""

    _target_: str = MISSING
    """The class in `sdx.translation`."""
    name: str = fields.name()
    """Short name, shown wherever a text is machine-translated."""


@dataclass
class GeneratorConfig:
    """An engine that completes prompts."""

    _target_: str = MISSING
    """The class in `sdx.generation`."""
    batch_size: int | None = fields.number(None, at_least=1, at_most=10**6)
    """Prompts completed at once, at most; null: 32 on a CPU, on a GPU as many as its memory holds. Ours."""
    precision: Precision = Precision.auto
    """Arithmetic of the forward pass."""


@dataclass
class CorpusColumns:
    """Which column of the file holds what; a dot goes into a nested object, as in `turns.0`."""

    instruction: str = "instruction"
    """The instruction."""
    input: str | None = None
    """A text that the instruction is about, put after it with a blank line between; none where there is no column."""
    answer: str = "answer"
    """The gold answer."""
    id: str | None = None
    """A name unique in the file; none names a row by the hash of its instruction."""


@dataclass
class CorpusConfig(FileSource):
    """Instructions in L. The gold answers serve the baselines and the held-out references only.

    At most one of `path` and `hub_id`; with neither it is the corpus shipped with sdx. `path` is a file of .jsonl,
    .json, .csv or .tsv, each also with .gz, or .parquet. `{language}` in it or in `file` stands for the source's code.
    """

    name: str = fields.name()
    """Short name in run directories and tables."""
    language: str | None = fields.language()
    """The language it is written in, any code of languages.csv; none takes `source` for granted."""
    columns: CorpusColumns = field(default_factory=CorpusColumns)
    """Which column holds what."""
    rows: int = fields.number(0, at_least=0, at_most=10**9)
    """About how many rows it has, for `plan=true` before it is there; 0: not known."""


@dataclass
class ParallelColumns:
    """Which column holds which side. `{source}` and `{target}` stand for the languages' codes."""

    source: str = "source"
    """The sentence in L."""
    target: str = "target"
    """The sentence in T."""


@dataclass
class ParallelConfig(FileSource):
    """Sentence pairs in L and T: translation data to train on, demonstrations, word pairs.

    At most one of `asset`, `path` and `hub_id`; with none there is no parallel corpus. `path` is a file of .tsv, .csv,
    .jsonl, .json or .parquet, all but the last also with .gz; or the two files of a Moses corpus, of which `{language}`
    is the end that differs. `{source}`, `{target}` and `{pair}` in it or in `file` stand for codes.
    """

    name: str = fields.name()
    """Short name in run directories and tables."""
    asset: str | None = None
    """Packaged data, see `sdx.offline.assets`."""
    columns: ParallelColumns = field(default_factory=ParallelColumns)
    """Which column holds which side."""


@dataclass
class DictionaryConfig:
    """Words of L with their translations in T, for code-switching. At most one of `asset` and `path`."""

    name: str = fields.name()
    """Short name in run directories and tables."""
    asset: str | None = None
    """Packaged dictionaries, see `sdx.offline.assets`."""
    path: str | None = fields.path()
    """File in MUSE's format, a word and its translation on each line; `{source}` and `{target}` stand for codes."""
    from_parallel: bool = False
    """Take word pairs from the parallel corpus."""


ANSWER_FILTERS = ("empty", "truncated", "repetition", "short", "long", "wrong_language", "refusal")
TRANSLATION_FILTERS = ("empty", "copied", "repetition", "short", "long", "length_ratio", "wrong_language")
TASK_FILTERS = ("final_number", "answer_span")


@dataclass
class FilterConfig:
    """Reasons to drop a synthetic row, by name: see `sdx.data.filters`. `[]` keeps all. All of it is ours."""

    answers: list[str] = field(default_factory=lambda: list(ANSWER_FILTERS), metadata=fields.among(ANSWER_FILTERS))
    """For the backbone's own answers."""
    translations: list[str] = field(
        default_factory=lambda: ["empty", "copied", "repetition", "length_ratio", "wrong_language"],
        metadata=fields.among(TRANSLATION_FILTERS),
    )
    """For machine-translated instructions and answers."""
    tasks: list[str] = field(default_factory=lambda: list(TASK_FILTERS), metadata=fields.among(TASK_FILTERS))
    """In addition to `translations`, for the fields of labelled tasks: a worked answer's number and the place of an
    answer in its context have to survive."""
    min_letters: int = fields.number(1, at_least=1, at_most=10**9)
    """`short`: fewer letters and digits than this."""
    max_letters: int = fields.number(8000, at_least=1, at_most=10**9)
    """`long`: more letters and digits than this."""
    length_ratio: float = fields.number(3.0, above=1, at_most=1000)
    """`length_ratio`: a translation this many times longer or shorter than its source, scripts made comparable."""


@dataclass
class TaskConfig:
    """One benchmark. `task=arc_easy`, `task=[arc_easy,mmlu_human]` and `task=offline` fill the dict of them."""

    _target_: str = MISSING
    """The class in `sdx.tasks.base`."""
    shots: int = fields.number(0, at_least=0, at_most=1000)
    """Solved examples before each question."""


@dataclass
class EngineConfig:
    """DeepSpeed: how training is laid out on the hardware. None of it but `precision` changes the result.

    What is null is chosen from the model's size, the number of ranks and their memory, see `sdx.training.layout`.
    """

    name: str = fields.name()
    """Short name in tables."""
    zero_stage: int | None = fields.number(None, at_least=0, at_most=3)
    """0: replicated; 1: optimizer state sharded over the ranks; 2: gradients too; 3: weights too."""
    offload_optimizer: bool | None = None
    """Keep optimizer state and its step on the CPU (ZeRO 1-3)."""
    precision: Precision = Precision.auto
    """Arithmetic of forward and backward, of scores and of what a stack reads."""
    micro_batch_tokens: int | None = fields.number(None, at_least=1, at_most=10**8)
    """Tokens per rank in one forward pass, of as many examples as fit; the rest of the batch is accumulated."""
    activation_checkpointing: bool | None = None
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: bool | None = None
    """Compile the model's layers: half a minute at the start, faster from then on."""


@dataclass
class ScaleConfig:
    """Row counts and steps in one place."""

    name: str = fields.name()
    """Short name in tables."""
    corpus_rows: int = fields.number(0, at_least=0, at_most=10**9)
    """Instructions to train on; 0 takes all that the held-out rows leave."""
    parallel_rows: int = fields.number(0, at_least=0, at_most=10**9)
    """Sentence pairs for each target language; 0 takes all."""
    text_rows: int = fields.number(2000, at_least=0, at_most=10**9)
    """English texts to align a stack on."""
    heldout_rows: int = fields.number(48, at_least=0, at_most=10**9)
    """Instructions kept out of training, for the answer-language rate and chrF++."""
    validation_rows: int = fields.number(0, at_least=0, at_most=10**9)
    """Questions and sentence pairs taken out of the training mix with all their versions, to validate on
    `train.validations` times: the model that is kept is the one with the smallest loss on them. 0: none, and the last
    one is kept. Ours."""
    max_new_tokens: int = fields.number(128, at_least=1, at_most=10**6)
    """Longest generated answer, in tokens."""
    max_length_tokens: int = fields.number(384, at_least=1, at_most=10**7)
    """Longest training example, prompt and response, in tokens; longer ones are dropped and counted."""
    epochs: int = fields.number(1, at_least=1, at_most=1000)
    """Passes over the training mix."""
    max_steps: int = fields.number(0, at_least=0, at_most=10**9)
    """Optimizer steps at most; 0 sets no limit."""
    batch_size: int = fields.number(128, at_least=1, at_most=10**6)
    """Examples per optimizer step."""
    eval_items: int = fields.number(0, at_least=0, at_most=10**9)
    """Questions per benchmark and language; 0 takes all."""


@dataclass
class TrainConfig:
    """Optimisation, equal for every method so that a difference between two runs is the method."""

    adapter: Adapter = Adapter.full
    """Train all weights, or LoRA adapters on all linear layers (merged into the export)."""
    lora_rank: int = fields.number(16, at_least=1, at_most=10**5)
    """Rank of the adapters. Ours."""
    lora_alpha: int = fields.number(32, at_least=1, at_most=10**6)
    """Scale of the adapters. Ours."""
    lora_dropout: float = fields.number(0.05, at_least=0, below=1)
    """Dropout before the adapters. Ours."""
    batch_size: int = fields.number(II("scale.batch_size"), at_least=1, at_most=10**6)
    """Examples per optimizer step, over all ranks and micro-batches; the scale's where it is not given."""
    optimizer: Optimizer = Optimizer.adamw
    """8-bit moments save 6 of 18 bytes a trained weight on a GPU, nothing on the CPU; they need the extra `8bit`."""
    learning_rate: float = fields.number(II("backbone.learning_rate"), above=0, at_most=1)
    """Peak learning rate of AdamW; the backbone's where it is not given. LoRA wants about ten times that. Ours."""
    warmup_ratio: float = fields.number(0.05, at_least=0, at_most=1)
    """Share of the steps with a linear rise from 0. Ours."""
    schedule: Schedule = Schedule.cosine
    """How the learning rate falls from its peak to the end. Ours."""
    final_ratio: float = fields.number(0.1, at_least=0, at_most=1)
    """Learning rate at the end of the decay, as a share of the peak. Ours."""
    keep_groups: bool = True
    """Keep the rows of a group, such as the versions of one question, neighbours in the shuffled order, so that they
    meet in a batch."""
    weight_decay: float = fields.number(0.0, at_least=0, at_most=10)
    """AdamW's decoupled decay. Ours."""
    max_grad_norm: float = fields.number(1.0, above=0, at_most=10**9)
    """Gradients are clipped to this global norm."""
    save_every_minutes: float = fields.number(15.0, at_least=0, at_most=10**6)
    """Minutes between two checkpoints, by the clock of the first rank; 0: none by the clock. A checkpoint has 12 bytes
    for each trained weight. Ours."""
    save_every_steps: int = fields.number(0, at_least=0, at_most=10**9)
    """Optimizer steps between two checkpoints, beside those by the clock; 0: none by the number of steps."""
    log_every_steps: int = fields.number(1, at_least=1, at_most=10**9)
    """Optimizer steps between two log lines."""
    validations: int = fields.number(4, at_least=1, at_most=1000)
    """Number of validation passes, evenly spaced over the training; the best model is kept. Ignored without validation
    data. Ours."""


@dataclass
class TrackingConfig:
    """Where metrics go beside the run directory. Tracking never fails a run."""

    _target_: str | None = None
    """The class in `sdx.tracking` that shows them; none shows nothing."""
    mode: TrackingMode = TrackingMode.auto
    """Of wandb, see `TrackingMode`."""
    project: str = fields.line("sdx")
    """wandb project."""
    entity: str | None = fields.line()
    """wandb entity; none takes the account's default."""
    group: str | None = fields.line()
    """wandb group, the study's name; none takes the experiment's, or method and languages where there is none."""


@dataclass
class Config:
    """One study run."""

    method: MethodConfig = MISSING
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    text: TextConfig = field(default_factory=TextConfig)
    lang: Any = field(default="pt", metadata=fields.LANGUAGES)
    """Target languages T: one as `lang=th`, several as `lang=[th,sw]`, a set of language_sets.yaml as `lang=stt4`.
    A `LangConfig` once the configuration is made."""
    source: str = fields.language("en")
    """Source language L, the resource-rich one: any code of languages.csv."""
    translator: TranslatorConfig = MISSING
    mt: TranslatorConfig | None = None
    """Machine translation of test items and of what self-translation is compared with, of the group `translator`:
    `translator@mt=nllb_600m`. None is the translator itself."""
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
    """`prepare` stops before training, as on nodes without GPUs; the same command without it goes on from there."""
    plan: bool = False
    """Print what the run would do, what it would need and how long it would take, and stop."""
    seed: int = fields.number(1, at_least=0, at_most=fields.SEED)
    """Seed of data order, mixing, dropout and adapters."""
    cache_dir: str = fields.path(MISSING)
    """Assets, converted models and step outputs, shared between runs; the environment's SDX_CACHE sets it."""
    runs_dir: str = fields.path("runs")
    """Run directories: reports, logs, samples."""

    def __post_init__(self) -> None:
        if not isinstance(self.lang, LangConfig):
            self.lang = LangConfig(self.source, targets(self.lang))
