"""mid-align: alignment of a middle layer during fine-tuning (Liu and Niehues, arXiv 2502.14830).

The LLM is fine-tuned in the resource-rich language L. Every other batch instead pulls the middle layer's states of
sentences and of their translations into T together, so that learning in L carries over to T.

    what                                                          whose
    fine-tuning batches alternate with alignment batches          the paper's: one after the other (`share` 0.5)
    the layer: 16 of 32                                           the paper's; of other depths, half: ours
    states are mean-pooled over a sentence's tokens               the paper's (authors' code)
    cosine similarity, temperature 0.1                            the paper's (authors' code)
    softmax over the translations of the batch, for a sentence    the paper's; that the sentence is in L: ours
    negatives: the 31 others of a micro-batch of 32 pairs         the authors' script; that a micro-batch is one fixed
                                                                  group of pairs (`Group`): ours
    128 pairs in an optimizer step                                the authors' script
    the weight of the alignment in the loss: 1                    ours: it is the only loss of its batches
    what is fine-tuned on: x_L -> y_L, the gold answers           ours: so the method is `sft` and nothing else;
                                                                  the paper's tasks are slots, translation and JSON
    sentence pairs: the run's `parallel` corpus, 1,000 of T       ours
    tokens: the tokenizer's own special tokens, no template       ours
    adapters, learning rate, schedule                             ours: those of every method here (the paper: LoRA)

A group of pairs is a training example: a rank reads the whole group in one micro-batch. So a sentence's negatives
depend neither on the number of ranks nor on the size of micro-batches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import accumulate, pairwise
from random import Random
from typing import TYPE_CHECKING, Any

from sdx import InputError
from sdx.config import Config, MethodConfig
from sdx.methods.base import Method, Run
from sdx.methods.baselines import gold
from sdx.options import fields
from sdx.store.files import read_rows
from sdx.store.step import Step, Workspace
from sdx.training.step import Beside, Train

if TYPE_CHECKING:
    from torch import Tensor

    from sdx.training.objectives import Auxiliary


@dataclass
class MidAlignConfig(MethodConfig):
    layer: int | None = fields.number(None, at_least=1, at_most=10_000)
    """The layer whose output is aligned, counted from 1; null: the middle layer, as the paper's 16 of 32."""
    temperature: float = fields.number(0.1, above=0, at_most=100)
    """Divides the similarities. The paper's."""
    share: float = fields.number(0.5, at_least=0, at_most=0.9)
    """Share of the optimizer steps that align; 0.5, every other step, is the paper's, and 0 is `sft`."""
    pairs: int = fields.number(32, at_least=2, at_most=10_000)
    """Sentence pairs of a group; a sentence's negatives are the group's other translations. The authors' script's."""
    groups: int = fields.number(4, at_least=1, at_most=10_000)
    """Groups of pairs in an alignment batch. The authors' script's."""
    parallel_rows: int = fields.number(1000, at_least=0, at_most=10**9)
    """Sentence pairs for each target language; 0 takes all. Ours."""


class MidAlign(Method[MidAlignConfig]):
    version = 1

    def check(self, run: Run) -> None:
        layers, layer = run.config.backbone.shape.layers, self.options.layer
        if self.options.share and not run.has_parallel:
            raise InputError("method=mid_align needs a parallel corpus; give parallel=offline or another")
        if layer and layers:
            _check_layer(layer, layers)

    def compared_with(self, config: Config) -> list[str]:
        return ["method=sft"]

    def model(self, run: Run) -> Step:
        mix = run.mix(partial(gold, run), {"corpus": run.corpus}, {}, self.version)
        rows = self.options.parallel_rows
        pairs = {f"p_{target.code}": run.parallel(run.source, target, rows) for target in run.targets}
        return AlignedTraining(mix, run.backbone, settings=run.config, pairs=pairs, options=self.options)


@dataclass(frozen=True, eq=False)
class AlignedTraining(Train):
    """Training on a mix that alternates with alignment on sentence pairs."""

    pairs: Mapping[str, Step] = field(kw_only=True)
    """`p_th` publishes the sentence pairs with Thai."""
    options: MidAlignConfig = field(kw_only=True)

    @property
    def config(self) -> Mapping[str, Any]:
        options = {name: value for name, value in asdict(self.options).items() if name not in ("_target_", "name")}
        return {**super().config, "mid_align": options}

    @property
    def beside(self) -> Beside:
        return Beside(self.options.share, self.options.pairs * self.options.groups, list(self.pairs.values()))

    def auxiliary(self, work: Workspace, tokenizer: Any) -> "Auxiliary | None":
        """Raises InputError if the model lacks the layer, or for fewer than two sentence pairs."""
        from sdx.models.shape import shape_in
        from sdx.training.objectives import Auxiliary

        options, shape = self.options, shape_in(work.inputs["backbone"] / "model")
        if not options.share:
            return None
        assert shape is not None
        layer = options.layer or max(1, shape.layers // 2)
        _check_layer(layer, shape.layers)
        limit, groups = self.settings.scale.max_length_tokens, list[Group]()
        for name in self.pairs:  # a group is of one target language
            rows = read_rows(work.inputs[name] / "rows.jsonl")
            groups += grouped(name, rows, tokenizer, options.pairs, limit, self.settings.seed)
        if not groups:
            raise InputError(
                f"method=mid_align: parallel={self.settings.parallel.name} has no two sentence pairs of at most "
                f"scale.max_length_tokens={limit} tokens; raise method.parallel_rows or scale.max_length_tokens"
            )
        objective = Alignment(layer, options.temperature, tokenizer.pad_token_id)
        return Auxiliary("alignment", objective, groups, options.groups, options.share)


def _check_layer(layer: int, layers: int) -> None:
    if layer > layers:
        raise InputError(f"method.layer={layer}: the backbone has {layers} layers; give one of them or null")


@dataclass(frozen=True)
class Group:
    """Sentence pairs that are each other's negatives."""

    id: str
    sources: list[list[int]]
    targets: list[list[int]]
    """Token ids, in the order of `sources`."""
    group: str = ""


def grouped(
    name: str, rows: Sequence[Mapping[str, Any]], tokenizer: Any, pairs: int, max_tokens: int, seed: int
) -> list[Group]:
    """Sentence pairs, shuffled and dealt to groups of similar size, at most `pairs` in a group.

    Leaves out pairs with a text longer than `max_tokens`, and pairs that repeat a text: it would be its own negative.
    """
    seen = set[str]()
    kept = []
    for row in rows:
        texts = {row["source"], row["target"]}
        sides = [tokenizer(row[side])["input_ids"] for side in ("source", "target")]
        if seen.isdisjoint(texts) and all(0 < len(side) <= max_tokens for side in sides):
            kept.append(sides)
            seen |= texts
    count = -(-len(kept) // pairs)
    kept = Random(f"pairs {seed} {name}").sample(kept, len(kept))
    dealt = [kept[number::count] for number in range(count)]
    return [
        Group(f"{name}/{number}", [source for source, _ in some], [target for _, target in some], f"{name}/{number}")
        for number, some in enumerate(dealt)
        if len(some) > 1
    ]


class Alignment:
    """Contrastive loss, in nats per sentence pair: finds a sentence's translation among the translations of the group,
    by the cosine of the mean-pooled states of `layer`, counted from 1."""

    def __init__(self, layer: int, temperature: float, pad_id: int) -> None:
        self.layer, self.temperature, self.pad_id = layer, temperature, pad_id

    def collate(self, examples: Sequence[Group], packed: bool) -> dict[str, Any]:
        """Sentences that do not see each other: a group's sources, then the group's targets."""
        from sdx.models.loading import padded
        from sdx.training import packing
        from sdx.training.hidden_states import pooling

        rows = [ids for one in examples for ids in (*one.sources, *one.targets)]
        inputs = packing.join(rows) if packed else padded(rows, self.pad_id)
        sizes = [len(one.sources) for one in examples]
        return {"inputs": inputs, **pooling(rows, [[(0, len(row))] for row in rows], packed), "pairs": sizes}

    def targets(self, example: Group) -> int:
        return len(example.sources)

    def tokens(self, example: Group) -> int:
        return sum(map(len, (*example.sources, *example.targets)))

    def loss(self, model: Any, batch: dict[str, Any]) -> "tuple[Tensor, Tensor]":
        import torch
        from torch.nn.functional import cross_entropy, normalize

        from sdx.training.hidden_states import hidden_states, pooled

        vectors = normalize(pooled(hidden_states(model, batch["inputs"], self.layer), batch), dim=1)
        loss = vectors.new_zeros(())
        for start, end in pairwise(accumulate((2 * count for count in batch["pairs"]), initial=0)):
            sources, targets = vectors[start:end].chunk(2)
            similarities = sources @ targets.T / self.temperature
            own = torch.arange(len(sources), device=vectors.device)
            loss = loss + cross_entropy(similarities, own, reduction="sum")
        return loss, torch.full_like(loss, sum(batch["pairs"]))

    def score(self, model: Any, batch: dict[str, Any]) -> "tuple[Tensor, Tensor]":
        loss, count = self.loss(model, batch)
        return -loss, count


SCHEMAS = {"mid_align": MidAlignConfig}
