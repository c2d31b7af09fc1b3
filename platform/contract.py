"""The contract: the types that attacks, defenses, datasets, models and the platform exchange, and nothing else.

A plug-in is one file whose one public factory has the file's name. The factory takes keyword-only annotated parameters
and returns one of the types of this page: :class:`Attack`, :class:`Defense`, :class:`Dataset`, or :data:`Model`.
Everything a plug-in may know reaches it as an argument: what is not in its view, it cannot use.

Notation in shape comments: ``n`` rows of a round, ``d`` parameters, ``m`` malicious rows, ``b`` samples of a batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol

from backstop.platform import notation
from backstop.platform.params import BadInput, Range

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

Scalar = bool | int | float | str | None
Kind = Literal["image", "text", "table"]
# What a model plug-in returns: (shape of one input, classes) → module. Its parameters are trained; its floating-point buffers are averaged
# with the weights that the defense leaves the clients; a non-persistent buffer is a constant. One of these, ``class_weights`` (classes,),
# weighs the samples of each class in the loss of local training.
Model = Callable[[tuple[int, ...], int], "nn.Module"]


class Part(NamedTuple):
    """A plug-in by name, with parameters. Text form: ``badnets(size=3)``."""

    name: str
    params: Mapping[str, Scalar] = {}

    def __str__(self) -> str:
        """The text form, parameters in alphabetical order; text that would not be read back as it stands is quoted."""
        if not self.params:
            return self.name
        return f"{self.name}({', '.join(f'{key}={notation.write(value)}' for key, value in sorted(self.params.items()))})"


MANY = 10**9


@dataclass(frozen=True, kw_only=True)
class Spec:
    """Everything that can change a number of an experiment, and nothing that cannot.

    Two specs with equal :attr:`id` give the same bytes on the same kind of device with the same library versions.
    """

    dataset: Part = Part("digits")
    model: Part = Part("mlp")
    attack: tuple[Part, ...] = ()  # stages compose left to right
    defense: tuple[Part, ...] = ()  # stages compose left to right; () is plain FedAvg
    clients: Annotated[int, Range(1, MANY), "clients in the federation"] = 100
    per_round: Annotated[int, Range(1, MANY), "clients that train in a round"] = 20
    malicious: Annotated[float, Range(0, 1), "share of all clients that is malicious"] = 0.2
    selection: Annotated[Literal["random", "fixed"], "fixed: every cohort holds the same number of malicious clients"] = "random"
    alpha: Annotated[
        float | Literal["natural", "shards"] | None,
        Range(0, MANY, low_open=True),
        "a number: Dirichlet concentration, by which each class is dealt over the clients (not each client's mix of classes drawn),"
        " so clients differ in size; none: IID; shards: two label shards a client; natural: the dataset's own clients",
    ] = 0.5
    rounds: Annotated[int, Range(1, MANY), "communication rounds"] = 30
    local_epochs: Annotated[int, Range(1, MANY), "passes over its own samples that a client makes in a round"] = 1
    batch: Annotated[int, Range(1, MANY), "samples in a local step"] = 64
    optimizer: Part = Part("sgd")  # built anew each round on each client
    start: Annotated[str | None, "checkpoint that the model starts from, named by its content; none: fresh initial values"] = None
    warmup: Annotated[int, Range(0, MANY), "rounds of clean, undefended FedAvg before the first round"] = 0
    server_lr: Annotated[float, Range(0, 1e6, low_open=True), "factor on the aggregate, the same for every defense"] = 1.0
    attack_start: Annotated[int, Range(0, MANY), "first round in which malicious clients attack"] = 0
    attack_stop: Annotated[int | None, Range(0, MANY), "first round in which they no longer do; none: never"] = None
    attack_every: Annotated[int, Range(1, MANY), "attack in every k-th round from the start on"] = 1
    attackers: Annotated[
        Literal["all", "in_turn"],
        "who attacks in an attacked round; all: every malicious client of its cohort;"
        " in_turn: one malicious client, the next by id each time, and the cohort holds it",
    ] = "all"
    dormant: Annotated[bool, "malicious clients make their trigger but train and send as honest ones: the attack's clean twin"] = False
    eval_every: Annotated[int, Range(1, MANY), "evaluate every k-th round and the last"] = 1
    root_size: Annotated[int, Range(0, MANY), "training samples the server holds out of the clients' data"] = 100
    block: Annotated[int, Range(1, MANY), "clients trained together by the vectorised engine (at most per_round)"] = 20
    seed: Annotated[int, Range(0, 2**31 - 1), "names all random streams"] = 0

    @cached_property
    def id(self) -> str:
        """Sha256 (hex) of the canonical JSON with defaults filled in and each plug-in's VERSION."""
        from backstop.platform.specs import identity

        return identity(self)

    def replace(self, **changes: Any) -> Spec:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)


class Samples(NamedTuple):
    """Inputs and labels.

    ``x`` of images is uint8 or float32 in [0, 1], (N, C, H, W); of tables float32 (N, F); of text int64 token ids (N, L),
    padded on the right with 0, so that lengths are the counts of non-zero ids. ``y`` is int64 (N,).
    """

    x: Tensor
    y: Tensor


class Column(NamedTuple):
    """How one column of a table was taken."""

    name: str
    kind: Literal["number", "truth value", "category", "left out"]
    features: int  # that it became
    detail: str = ""  # e.g. ``12 missing``, ``3 values``, or why it was left out


class Reading(NamedTuple):
    """What a dataset made of its files: said in one line at every load, kept with every run."""

    source: str  # the file, as the spec or the data folder names it
    rows: int  # records there
    dropped: Mapping[str, int]  # reason → records that are in neither part
    classes: Mapping[str, int]  # name → records in the two parts, in the order of the labels
    train: int
    test: int
    copies: int = 0  # training records that equal an earlier one
    across: int = 0  # test records that equal a training record
    columns: tuple[Column, ...] = ()
    form: str = ""  # of one input, e.g. ``5 features``
    notes: tuple[str, ...] = ()  # what may not be meant


class Data(NamedTuple):
    """A decoded dataset: loaded once, validated on load, never changed.

    Inputs reach attacks and models as float32 in [0, 1] (images), as stored otherwise; the model call subtracts ``mean`` and
    divides by ``std`` (one value per channel or feature) itself, so clean and triggered inputs are always on one scale.
    """

    train: Samples
    test: Samples
    classes: int
    kind: Kind
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    client: Tensor | None = None  # (N,) int64: natural client of each training sample
    vocabulary: Mapping[str, int] | None = None  # of text: word → token id, from the training data
    vectors: Tensor | None = None  # of text: (largest token id + 1, dim) float32, pre-trained initial values of a model's embedding
    root: Samples | None = None  # the server's small root set, set by the platform: held out of train, never of test
    reading: Reading | None = None  # what was made of the files; None: the platform says what the tensors show


class File(NamedTuple):
    """One file or folder that a dataset reads from the data folder."""

    path: str  # relative to the data folder
    md5: str | None  # of the file's bytes, None where it is a folder or has no published checksum
    hint: str  # how to get it, one line
    instead: tuple[File, ...] = ()  # other files that serve as well


class Dataset(NamedTuple):
    """What a dataset plug-in returns. ``load`` and ``edge_cases`` raise :class:`BadInput` when files are missing or corrupt."""

    load: Callable[[Path], Data]
    files: tuple[File, ...] = ()
    edge_cases: Callable[[Path], tuple[Tensor, Tensor]] | None = None  # (train x, test x), stored like Data.train.x
    edge_files: tuple[File, ...] = ()
    edge_target: int | None = None  # the label the published attack gives to the edge cases
    download: Callable[[Path], None] | None = None  # fetch the files into the data folder; only ever on request


class Updates(NamedTuple):
    """The round's updates, sorted by client id.

    A defense may rescale or change rows, set weights to 0, or return fewer rows. A row that merges several clients has
    client id -1. The server finishes with the mean of the rows weighted by ``weight``. What a stage returns is held to finite rows and
    to finite weights of at least 0.
    """

    rows: Tensor  # (n, d) float32: local parameters minus global parameters
    weight: Tensor  # (n,) float32: sample counts
    client: Tensor  # (n,) int64


class Shares(NamedTuple):
    """How much each client counts in a round."""

    client: Tensor  # (k,) int64
    weight: Tensor  # (k,) float32


class Slot(NamedTuple):
    """Where one parameter tensor stands in the flat vector."""

    name: str
    start: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ServerView:
    """What an honest server may know. The number of attackers is not in it, nor is any client's data."""

    round: int
    params: Tensor  # (d,) global parameters
    layout: tuple[Slot, ...]
    model: Callable[[Tensor, Tensor], Tensor]  # (params (d,), x (b, …)) → logits (b, classes); differentiable
    features: Callable[[Tensor, Tensor], Tensor]  # (params (d,), x (b, …)) → (b, h): what the last linear layer is given
    train: Callable[[Tensor, Samples], Tensor]  # (params (d,), samples) → update (d,): the local training of an honest client
    head: tuple[Slot, ...]  # of the last linear layer: weight (classes, h) and, where there is one, bias (classes,)
    root: Samples  # root_size samples, x as the model call takes it
    classes: int
    server_lr: float
    generator: torch.Generator  # named by (seed, "defense", round)


@dataclass(frozen=True)
class ClientView:
    """What one honest client knows before its local steps: the global model and its own data."""

    round: int
    params: Tensor  # (d,) global parameters
    model: Callable[[Tensor, Tensor], Tensor]  # as in ServerView
    data: Samples  # the client's samples, x as the model call takes it
    classes: int
    generator: torch.Generator  # named by (seed, "local", round, client)


@dataclass(frozen=True)
class AttackView:
    """What the adversary may know: the global model and the data of its own clients; besides them, if it KNOWS = "defense", the
    defense in use, and if it KNOWS = "all", the honest rows.
    """

    round: int
    params: Tensor  # (d,) global parameters
    layout: tuple[Slot, ...]
    model: Callable[[Tensor, Tensor], Tensor]  # as in ServerView, and so are the next three
    features: Callable[[Tensor, Tensor], Tensor]
    train: Callable[[Tensor, Samples], Tensor]
    # () → (m, d): what the members would send as honest clients, trained on the very batches
    # that they are dealt in this round; what is left of a malicious row less its own is the poison
    unpoisoned: Callable[[], Tensor]
    head: tuple[Slot, ...]
    samples: Callable[[], Samples]  # use ``data``
    sizes: tuple[int, ...]  # samples of each malicious client
    classes: int
    kind: Kind
    clients: int  # number of malicious clients in the experiment
    members: Tensor  # (m,) indices of the malicious clients that attack in this round; empty outside a round
    total: int  # number of clients in this round's cohort
    share: float  # of this round's sample weight that these hold; the malicious share outside a round
    server_lr: float
    generator: torch.Generator  # named by (seed, "attack", round), the stage, and the function that is given the view
    edge_cases: Callable[[], tuple[Samples, Samples]] | None  # the dataset's external edge cases: train, test, labelled with their target
    vocabulary: Mapping[str, int] | None = None  # of text: word → token id
    # (x, y, index) → (x, y): a batch of malicious client number ``index``, as the stages before
    # this one poison it; as it is for the first stage and outside a round
    poison: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] = lambda x, y, index: (x, y)
    class_weights: Tensor | None = None  # (classes,): of the classes in the loss of local training, where the model has some
    test: Samples | None = None  # only while the triggered test set is built
    honest: Tensor | None = None  # (n - m, d) honest rows, only for stages with KNOWS = "all"
    defend: Callable[[Tensor], Updates] | None = None  # what the defense in use makes of rows (n, d) of equal weight, clients 0 … n - 1,
    # run by the adversary with a fresh state and its own data as root set; only for stages with KNOWS = "defense"

    @property
    def data(self) -> Samples:
        """The samples of all malicious clients, client after client, x as the model call takes it; made when first asked for."""
        return self.samples()

    def own(self, index: int) -> Samples:
        """The samples of malicious client number ``index``."""
        start, stop = sum(self.sizes[:index]), sum(self.sizes[: index + 1])
        return Samples(self.data.x[start:stop], self.data.y[start:stop])


class Step(NamedTuple):
    """One local step of a malicious client: its batch as it was dealt, and as the stages of the attack poison it."""

    clean: Samples
    poisoned: Samples

    @property
    def changed(self) -> Samples:
        """The poisoned samples among those of the batch: an input or a label is another one."""
        (x, y), (attacked, wanted) = self
        where = (attacked != x).flatten(1).any(1) | (wanted != y)
        return Samples(attacked[where], wanted[where])


@dataclass(frozen=True)
class TrainView:
    """What one malicious client has for local training of its own making.

    Unlike an honest client's, its model is in evaluation mode while it trains: batch normalization uses the stored
    statistics, dropout is off, and floating-point buffers are sent as they came (unless ``craft_buffers`` changes them).
    """

    round: int
    index: int  # number of the malicious client
    params: Tensor  # (d,) global parameters
    layout: tuple[Slot, ...]
    model: Callable[[Tensor, Tensor], Tensor]  # as in ServerView, and so are the next two
    features: Callable[[Tensor, Tensor], Tensor]
    head: tuple[Slot, ...]
    classes: int
    steps: tuple[Step, ...]  # the local steps that the client would take
    loss: Callable[[Tensor, Tensor], Tensor]  # (logits (b, classes), y (b,)) → the mean cross-entropy that local training minimises,
    # with the model's class weights where it has some
    minimise: Minimise
    generator: torch.Generator  # named by (seed, "malicious training", round, client)


@dataclass
class Memory:
    """What an optimizer remembers from one call of :class:`Minimise` to the next: momentum.

    Written by the call that it is given to; empty until then.
    """

    value: Any = None


class Minimise(Protocol):
    """Local training on a loss: the spec's optimizer takes one step for each batch."""

    def __call__(
        self,
        loss: Callable[[Tensor, Step], Tensor],
        start: Tensor | None = None,
        steps: Sequence[Step] | None = None,
        rates: Sequence[float] | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """``loss(params (d,), step)`` → scalar, differentiable; ``start`` (d,), the global parameters unless given → parameters (d,).
        A loss that does not depend on the parameters moves nothing. ``rates`` holds for each step a
        factor on the learning rate, which is the honest one unless a stage sets another. With a
        ``memory`` the optimizer goes on as the last call with it left off, else it starts anew.

        What other stages of the attack ask for holds here too: their objectives are added, their constraints applied after each step.
        """


class Local(NamedTuple):
    """How a defense changes the local training of honest clients; clients that attack in a round do not follow it.

    Each function is None unless the stage changes it. No function may change its arguments.

    ``prepare(view)``                   → what a client remembers during its local steps of one round
    ``batch(memory, x, y, generator)``  → (x, y): a batch of the client, same shapes
    ``gradient(grad, delta, noise)``    → grad (…, d) of a local step; works on one row or on a block of rows. ``delta`` (…, d) is how
                                        far the client has moved, ``noise()`` gives standard normal draws (…, d), each client's its own
    """

    prepare: Callable[[ClientView], Any] | None = None
    batch: Callable[[Any, Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]] | None = None
    gradient: Callable[[Tensor, Tensor, Callable[[], Tensor]], Tensor] | None = None


@dataclass(frozen=True)
class PredictView:
    """What the defended model has where it labels inputs: itself, and what it makes of them."""

    params: Tensor  # (d,) the final model
    scores: Callable[[Tensor], Tensor]  # parameters (d,) → logits (N, classes) of the inputs
    generator: torch.Generator  # named by (seed, "predict", round): all inputs meet the same draws


class Prediction(NamedTuple):
    """The labels of N inputs. A rejected input counts neither as right nor as a success of the attack."""

    label: Tensor  # (N,) int64; -1: rejected, or no finite output
    radius: Tensor | None = None  # (N,) float64: how large an attack is certified to be without effect; 0: not certified


def no_state(_: ServerView) -> None:
    """The ``init`` of a stage that keeps nothing between rounds."""


def as_they_are(updates: Updates, state: Any, _: ServerView) -> tuple[Updates, Any]:
    """The ``apply`` of a stage that leaves the rows alone."""
    return updates, state


class Defense(NamedTuple):
    """A defense stage: pure functions that must not change their arguments.

    ``init(view)``                   → state, before the first round
    ``apply(updates, state, view)``  → (updates, state): the rows of a round
    ``local``                        where honest clients train differently
    ``finish(state, view)``          → (d,): the final model repaired, once after the last round; ``view.params`` is the model so far
    ``send(state, view)``            → (params (d,), state): the model that a round's clients are sent,
                                     where it is not the last aggregate, ``view.params``
    ``predict(view)``                → :class:`Prediction`: how the final model labels inputs,
                                     where it is not by its largest output
    ``follow``                       of a :func:`chain`: ``apply``, and how much each client counts; a stage leaves it out
    """

    init: Callable[[ServerView], Any] = no_state
    apply: Callable[[Updates, Any, ServerView], tuple[Updates, Any]] = as_they_are
    local: Local | None = None
    finish: Callable[[Any, ServerView], Tensor] | None = None
    send: Callable[[Any, ServerView], tuple[Tensor, Any]] | None = None
    predict: Callable[[PredictView], Prediction] | None = None
    follow: Callable[[Updates, Any, ServerView], tuple[Updates, Any, Shares]] | None = None


class Training(NamedTuple):
    """How malicious clients train where they differ from honest ones; None: as honest ones."""

    epochs: int | None = None
    lr: float | None = None


class TestSet(NamedTuple):
    """A triggered test set. ``truth`` is -1 where no true label exists."""

    x: Tensor  # (N, …)
    wanted: Tensor  # (N,) the label the attacker wants; -1: the sample is not attacked
    truth: Tensor  # (N,)


TestSet.__test__ = False  # type: ignore[attr-defined]  # not a test class, whatever pytest thinks of its name


class Attack(NamedTuple):
    """An attack stage: each function is None unless the stage changes it. No function may change its arguments.

    ``init(view)``                      → state, before the first round
    ``plan(state, view)``               → state, before each attacked round, e.g. optimise a trigger
    ``poison(state, x, y, index, generator)``  → (x, y): a batch of malicious client number ``index``, same shapes
    ``constrain(state, delta, step)``   → delta (…, d), after local step number ``step`` (from 1); works on one row or on a block of rows
    ``objective(state, delta, x, y, logits)``  → scalar, added to the loss of malicious clients; delta (d,), differentiable
    ``training``                        where malicious clients train differently
    ``pace(state)``                     → factor on their learning rate in this round
    ``train(state, view)``              → (d,), the update of one malicious client, in place of its local steps
    ``craft(state, rows, view)``        → (m, d) → (m, d), after local training
    ``craft_buffers(state, changes, view)``  → (m, e) → (m, e): what malicious clients send of the changes of floating-point
                                        buffers, after ``craft``; only where the model has some
    ``trigger(state, x, generator)``    → clean inputs → triggered inputs, same shape, images in [0, 1]
    ``goal(state, y)``                  → true labels → labels the attacker wants, -1 where a sample is not attacked
    ``test_set(state, view)``           → :class:`TestSet`, instead of ``trigger``, for attacks with inputs of their own
    """

    init: Callable[[AttackView], Any] | None = None
    plan: Callable[[Any, AttackView], Any] | None = None
    poison: Callable[[Any, Tensor, Tensor, int, torch.Generator], tuple[Tensor, Tensor]] | None = None
    constrain: Callable[[Any, Tensor, int], Tensor] | None = None
    objective: Callable[[Any, Tensor, Tensor, Tensor, Tensor], Tensor] | None = None
    training: Training | None = None
    pace: Callable[[Any], float] | None = None
    train: Callable[[Any, TrainView], Tensor] | None = None
    craft: Callable[[Any, Tensor, AttackView], Tensor] | None = None
    craft_buffers: Callable[[Any, Tensor, AttackView], Tensor] | None = None
    trigger: Callable[[Any, Tensor, torch.Generator], Tensor] | None = None
    goal: Callable[[Any, Tensor], Tensor] | None = None
    test_set: Callable[[Any, AttackView], TestSet] | None = None


class Record(NamedTuple):
    """What one evaluated round reports. Metrics hold no costs: the same spec gives the same metrics."""

    id: str
    round: int
    metrics: Mapping[str, float]
    costs: Mapping[str, float] = {}  # seconds and memory since the last record: time/…_s, memory/…_mib


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search: Optuna proposes specs around ``base``; each proposal is run for every seed and scored by ``objective``."""

    base: Spec
    free: Sequence[str]  # e.g. "defense.invariant.mask_threshold"; ranges from the plug-ins' annotations
    objective: str = "der"  # a leaderboard column of the proposal, to be maximised
    trials: int = 20
    width: int = 4  # proposals per generation, asked together and told in trial order
    seeds: Sequence[int] = field(default=(0,))
    seed: int = 0  # of the sampler


def stateless(function: Callable[[Updates], Updates]) -> Defense:
    """A defense that keeps nothing between rounds and needs no view."""
    return Defense(apply=lambda updates, state, view: (function(updates), state))


def merge(updates: Updates, row: Tensor) -> Updates:
    """One merged row (d,) in place of all rows, with the weight of all of them."""
    weight = updates.weight.sum().reshape(1)
    return Updates(row.reshape(1, -1), weight, updates.client.new_full((1,), -1))


def select(updates: Updates, chosen: Tensor) -> Updates:
    """The chosen rows keep their weight, all others get 0. ``chosen`` holds truth values (n,) or row numbers (k,)."""
    mask = updates.client.new_zeros(len(updates.client)).bool()
    mask[chosen.to(mask.device)] = True
    return updates._replace(weight=updates.weight.where(mask, 0.0))


def equal_weights(updates: Updates) -> Updates:
    """All rows that have a weight with the same one, their mean weight: the server's mean of them is the plain one."""
    kept = updates.weight > 0
    return updates._replace(weight=kept * (updates.weight.sum() / kept.sum().clamp_min(1)))


def without_rejected(updates: Updates) -> Updates:
    """The rows that still have a weight: what the next stage of a chain sees."""
    left = updates.weight > 0
    return updates if left.all() else Updates(*(column[left] for column in updates))


class BrokenStage(Exception):  # noqa: N818 -- it names what happened, as BadInput does
    """A stage returned what no stage may return. The run ends with this one line, which names the stage."""


def _hold(stage: str, given: Updates, returned: Updates, round_number: int) -> None:
    """Raise :class:`BrokenStage` for what would leave the weighted mean without a meaning."""
    if not isinstance(returned, Updates):
        raise BrokenStage(f"defense {stage}: it returned {type(returned).__name__} in round {round_number}; a stage returns Updates")
    rows, count = returned.rows, len(returned.rows)
    if rows.ndim != 2 or rows.shape[1] != given.rows.shape[1] or rows.dtype != given.rows.dtype:
        raise BrokenStage(
            f"defense {stage}: rows of shape {tuple(rows.shape)} and {rows.dtype} in round {round_number};"
            f" it was given {tuple(given.rows.shape)}, {given.rows.dtype}, and may change the number of rows only"
        )
    if len(returned.weight) != count or len(returned.client) != count:
        raise BrokenStage(
            f"defense {stage}: {count} rows with {len(returned.weight)} weights and {len(returned.client)} clients"
            f" in round {round_number}; there is one of each for a row"
        )
    sound = returned.weight.isfinite() & (returned.weight >= 0)
    if not sound.all():
        raise BrokenStage(
            f"defense {stage}: {int((~sound).sum())} of {len(sound)} weights are NaN, infinite or negative"
            f" in round {round_number}; a stage must return finite weights of at least 0"
        )
    if returned.rows is given.rows:
        return
    finite = returned.rows.amax(1).isfinite() & returned.rows.amin(1).isfinite()  # needs no second matrix
    if not finite.all():
        raise BrokenStage(
            f"defense {stage}: {int((~finite).sum())} of {len(finite)} rows hold a NaN or an infinity"
            f" in round {round_number}; a stage must return finite rows"
        )


def _finite(stage: str, what: str, given: Tensor, returned: Tensor) -> Tensor:
    """The parameters that a stage returned. Raises :class:`BrokenStage` where it made them infinite or NaN."""
    if given.isfinite().all() and not returned.isfinite().all():
        raise BrokenStage(f"defense {stage}: the {what} holds a NaN or an infinity; a stage must return finite parameters")
    return returned


def chain(*stages: Defense, names: Sequence[str] = ()) -> Defense:
    """One defense that applies the stages from left to right. Its state is the tuple of theirs. ``names`` are for its errors.

    A stage sees only rows that the stages before it left some weight; where none is left, the round ends there.
    ``follow`` says how much each client counts in what is left: where a stage merges rows, clients count from there on
    as much as before that stage. Raises :class:`BrokenStage` for a stage that returns a row or a weight that is not
    finite, or a negative weight. At most one stage may say how the model predicts; raises BadInput otherwise.
    """
    called = (*names, *(f"stage {number}" for number in range(len(names) + 1, len(stages) + 1)))
    predicting = [number for number, stage in enumerate(stages, 1) if stage.predict]
    if len(predicting) > 1:
        both = " and ".join(called[number - 1] for number in predicting)
        raise BadInput(f"defense: {both} both say how the final model predicts; keep one of them, or turn that off in the other")

    def init(view: ServerView) -> tuple[Any, ...]:
        return tuple(stage.init(view) for stage in stages)

    def follow(updates: Updates, states: tuple[Any, ...], view: ServerView) -> tuple[Updates, tuple[Any, ...], Shares]:
        shares, after = Shares(updates.client, updates.weight), list(states)
        for number, stage in enumerate(stages):
            given = updates
            updates, after[number] = stage.apply(given, states[number], view)
            _hold(called[number], given, updates, view.round + 1)
            if (updates.client >= 0).all():
                shares = Shares(updates.client, updates.weight)
            updates = without_rejected(updates)
            if not len(updates.weight):
                return updates, tuple(after), shares._replace(weight=shares.weight * 0.0)
        return updates, tuple(after), shares

    def apply(updates: Updates, states: tuple[Any, ...], view: ServerView) -> tuple[Updates, tuple[Any, ...]]:
        updates, states, _ = follow(updates, states, view)
        return updates, states

    def finish(states: tuple[Any, ...], view: ServerView) -> Tensor:
        for stage, state, name in zip(stages, states, called, strict=True):
            if stage.finish:
                view = dataclasses.replace(view, params=_finite(name, "repaired model", view.params, stage.finish(state, view)))
        return view.params

    def send(states: tuple[Any, ...], view: ServerView) -> tuple[Tensor, tuple[Any, ...]]:
        after = list(states)
        for number, stage in enumerate(stages):
            if stage.send:
                params, after[number] = stage.send(states[number], view)
                view = dataclasses.replace(view, params=_finite(called[number], "model that it sends", view.params, params))
        return view.params, tuple(after)

    locals_ = tuple(stage.local for stage in stages if stage.local)
    return Defense(
        init,
        apply,
        local=_local_chain(locals_) if locals_ else None,
        finish=finish if any(stage.finish for stage in stages) else None,
        send=send if any(stage.send for stage in stages) else None,
        predict=stages[predicting[0] - 1].predict if predicting else None,
        follow=follow,
    )


def _local_chain(stages: Sequence[Local]) -> Local:
    def prepare(view: ClientView) -> tuple[Any, ...]:
        return tuple(stage.prepare(view) if stage.prepare else None for stage in stages)

    def batch(memories: tuple[Any, ...], x: Tensor, y: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        for stage, memory in zip(stages, memories, strict=True):
            if stage.batch:
                x, y = stage.batch(memory, x, y, generator)
        return x, y

    def gradient(grad: Tensor, delta: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        for stage in stages:
            if stage.gradient:
                grad = stage.gradient(grad, delta, noise)
        return grad

    return Local(
        prepare,
        batch if any(stage.batch for stage in stages) else None,
        gradient if any(stage.gradient for stage in stages) else None,
    )
