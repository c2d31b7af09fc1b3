"""The contract: the types that attacks, defenses, datasets, models and the platform exchange, and
nothing else.

A plug-in is one file whose one public factory has the file's name. The factory takes keyword-only
annotated parameters and returns one of the types of this page: :class:`Attack`, :class:`Defense`,
:class:`Dataset`, or :data:`Model`. Everything a plug-in may know reaches it as an argument: what is
not in its view, it cannot use.

Notation in shape comments: ``n`` rows of a round, ``d`` parameters, ``m`` malicious rows, ``b``
samples of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol

from typing_extensions import TypeVar

from backstop.platform.declarations.facts import Kind as Kind
from backstop.platform.specs.part import Part as Part
from backstop.platform.specs.part import Scalar as Scalar
from backstop.platform.specs.search import Search as Search
from backstop.platform.specs.spec import Spec as Spec

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


# What a stage remembers from round to round: ``Attack[Tensor]``, ``Defense[dict[int, Tensor]]``.
# Without it, the state is Any and nobody checks that the functions of a stage agree on it.
StateT = TypeVar("StateT", default=Any)
State_co = TypeVar("State_co", covariant=True)  # a state that a function makes
State_contra = TypeVar("State_contra", contravariant=True)  # a state that a function only reads

# What a model plug-in returns: (shape of one input, classes) → module. Its parameters are trained;
# its floating-point buffers are averaged with the weights that the defense leaves the clients; a
# non-persistent buffer is a constant. One of these, ``class_weights`` (classes,), weighs the
# samples of each class in the loss of local training.
Model = Callable[[tuple[int, ...], int], "nn.Module"]


class Samples(NamedTuple):
    """Inputs and labels.

    ``x`` of images is uint8 or float32 in [0, 1], (N, C, H, W); of tables float32 (N, F); of text
    int64 token ids (N, L), padded on the right with 0, so that lengths are the counts of non-zero
    ids. ``y`` is int64 (N,).
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
    clients: tuple[str, ...] = ()  # names of the natural clients, by their numbers


class Data(NamedTuple):
    """A decoded dataset: loaded once, validated on load, never changed.

    Inputs reach attacks and models as float32 in [0, 1] (images), as stored otherwise; the model
    call subtracts ``mean`` and divides by ``std`` (one value per channel or feature) itself, so
    clean and triggered inputs are always on one scale.
    """

    train: Samples
    test: Samples
    classes: int
    kind: Kind
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    client: Tensor | None = None  # (N,) int64: natural client of each training sample
    vocabulary: Mapping[str, int] | None = None  # of text: word → token id, from the training data
    # of text: (largest token id + 1, dim) float32, pre-trained initial values of a model's
    # embedding
    vectors: Tensor | None = None
    # the server's small root set, set by the platform: held out of train, never of test
    root: Samples | None = None
    # what was made of the files; None: the platform says what the tensors show
    reading: Reading | None = None


class File(NamedTuple):
    """One file or folder that a dataset reads from the data folder, or several by one pattern."""

    path: str  # relative to the data folder
    md5: str | None  # of the file's bytes, None where it is a folder or has no published checksum
    hint: str  # how to get it, one line
    instead: tuple[File, ...] = ()  # other files that serve as well


class Dataset(NamedTuple):
    """What a dataset plug-in returns. ``load`` and ``edge_cases`` raise :class:`BadInput` when
    files are missing or corrupt.
    """

    load: Callable[[Path], Data]
    files: tuple[File, ...] = ()
    # (train x, test x), stored like Data.train.x
    edge_cases: Callable[[Path], tuple[Tensor, Tensor]] | None = None
    edge_files: tuple[File, ...] = ()
    edge_target: int | None = None  # the label the published attack gives to the edge cases
    # fetch the files into the data folder; only ever on request
    download: Callable[[Path], None] | None = None


class Updates(NamedTuple):
    """The round's updates, sorted by client id.

    A defense may rescale or change rows, set weights to 0, or return fewer rows. A row that merges
    several clients has client id -1. The server finishes with the mean of the rows weighted by
    ``weight``. What a stage returns is held to finite rows and to finite weights of at least 0.
    """

    rows: Tensor  # (n, d) float32: local parameters minus global parameters
    weight: Tensor  # (n,) float32: sample counts
    client: Tensor  # (n,) int64


class Buffers(NamedTuple):
    """The floating-point buffers (BatchNorm statistics) that the clients of a round sent, whatever
    became of their rows. A defense can look at them, and let them count less by taking weight from
    the row of the client.

    >>> import torch
    >>> layout = (Slot("norm.running_mean", 0, (2,)),)
    >>> changes, start = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.ones(2)
    >>> Buffers(torch.tensor([3, 7]), changes, start, layout).of(torch.tensor([7]))
    tensor([[1., 3.]])
    """

    client: Tensor  # (k,) int64, ascending; empty outside of a round
    changes: Tensor  # (k, e) float32: local minus global buffers
    start: Tensor  # (e,) the global ones that the clients were sent
    layout: tuple[Slot, ...]  # their names, and where they stand; () where the model has none

    def of(self, client: Tensor) -> Tensor:
        """The local buffers (n, e) of clients (n,), e.g. of ``updates.client``. Raises ValueError
        for who sent none, as a row that merges several clients did.
        """
        sent = self.client == client[:, None]
        if not sent.any(1).all():
            strangers = client[~sent.any(1)].tolist()
            raise ValueError(f"no buffers came from clients {strangers}; a merged row has none")
        return self.start + self.changes[sent.nonzero()[:, 1]]


def no_buffers() -> Buffers:
    """Those of a model that has none."""
    import torch

    nobody = torch.zeros(0, dtype=torch.int64)
    return Buffers(nobody, torch.zeros(0, 0), torch.zeros(0), ())


class Shares(NamedTuple):
    """How much each client counts in a round."""

    client: Tensor  # (k,) int64
    weight: Tensor  # (k,) float32


class Slot(NamedTuple):
    """Where one parameter tensor stands in the flat vector.

    >>> weight = Slot("weight", 1, (2, 3))
    >>> weight.size, weight.span
    (6, slice(1, 7, None))
    """

    name: str
    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many parameters the tensor holds."""
        return math.prod(self.shape)

    @property
    def span(self) -> slice:
        """Its parameters in the flat vector: ``vector[slot.span]``, ``rows[:, slot.span]``."""
        return slice(self.start, self.start + self.size)

    def of(self, vector: Tensor) -> Tensor:
        """The tensor itself out of flat vectors (…, d), in its shape (…, *shape)."""
        return vector[..., self.span].reshape(*vector.shape[:-1], *self.shape)


@dataclass(frozen=True, kw_only=True)
class RoundView:
    """What everybody knows who is sent the global model in a round: the fields that server, honest
    client and adversary share.
    """

    round: int
    params: Tensor  # (d,) global parameters
    layout: tuple[Slot, ...]
    # (params (d,), x (b, …)) → logits (b, classes); differentiable
    model: Callable[[Tensor, Tensor], Tensor]
    # (params (d,), x (b, …)) → (b, h): what the last linear layer is given
    features: Callable[[Tensor, Tensor], Tensor]
    # of the last linear layer: weight (classes, h) and, where there is one, bias (classes,)
    head: tuple[Slot, ...]
    classes: int
    generator: torch.Generator  # each view's is its own, named in its docstring
    # (d,) bool: what stays with each client, where rows hold 0; None: nothing does
    private: Tensor | None = None


class Score(Protocol):
    """What an honest client says of models by its own data: the more, the better of a model."""

    def __call__(self, models: Tensor, view: ClientView, client: int, /) -> Tensor:
        """Finite scores (k, s) of models (k, d), as many of each for every client; ``client`` is
        the client's id. Asked in any thread or process, so it looks at its arguments only; the
        generator of the view is named by (seed, "validation", round, client).
        """


class Question(NamedTuple):
    """What clients are asked in a validation round."""

    models: Tensor  # (k, d) parameters
    sender: Tensor  # (k,) int64: whose model each is; -1: of several clients
    score: Score
    low: float = -math.inf  # what lies below, or above ``high``, counts as the bound itself
    high: float = math.inf

    def answer(self, view: ClientView, client: int) -> Tensor:
        """What the client honestly says, (k, s) float64. Raises ValueError for what is no score."""
        scores, count = self.score(self.models, view, client), len(self.models)
        if scores.ndim != 2 or len(scores) != count or not scores.isfinite().all():
            raise ValueError(
                f"a score gives finite numbers ({count}, s), a row for each model; it gave"
                f" {tuple(scores.shape)}, {int((~scores.isfinite()).sum())} not finite"
            )
        return self.bounded(scores)

    def bounded(self, scores: Tensor) -> Tensor:
        """Scores within the bounds, float64."""
        return scores.detach().double().clamp(self.low, self.high)


class Answers(NamedTuple):
    """What clients have answered."""

    client: Tensor  # (m,) int64, ascending
    scores: Tensor  # (m, k, s) float64, finite


class Validate(Protocol):
    """A validation round: honest clients answer as the question's ``score`` does on their own data,
    malicious ones as the attack has them.
    """

    def __call__(self, question: Question, voters: Tensor | int, /) -> Answers:
        """``voters`` are ids (m,) of clients of this round, or how many are drawn from all clients
        of the federation (all of them where there are fewer), the same ones whenever a round asks.
        """


def nobody_asked(_: Question, __: Tensor | int, /) -> Answers:
    """The ``validate`` of a view outside ``apply``."""
    raise ValueError("clients can be asked in apply only")


@dataclass(frozen=True, kw_only=True)
class ServerView(RoundView):
    """What an honest server may know. The number of attackers is not in it, nor is any client's
    data. Its generator is named by (seed, "defense", round).
    """

    # (params (d,), samples) → update (d,): the local training of an honest client
    train: Callable[[Tensor, Samples], Tensor]
    root: Samples  # root_size samples, x as the model call takes it
    server_lr: float
    # of the clients whose rows are defended
    buffers: Buffers = field(default_factory=no_buffers)
    # client → (p,) what it has sent besides its last row, where a stage has it do so; who attacks
    # sends nothing besides
    told: Mapping[int, Tensor] = field(default_factory=dict)
    validate: Validate = nobody_asked  # lets clients score models, in ``apply`` only


@dataclass(frozen=True, kw_only=True)
class ClientView(RoundView):
    """What one honest client knows before its local steps: the global model and its own data. Its
    generator is named by (seed, "local", round, client).
    """

    data: Samples  # the client's samples, x as the model call takes it
    # (p,) what it remembers of the last round in which it trained, where a stage has it remember
    carried: Tensor | None = None


class RunDefense(Protocol):
    """The defense in use, as an adversary that knows it runs a copy of its own."""

    def __call__(
        self,
        updates: Updates,
        /,
        memory: Any = None,
        at: tuple[int, Tensor] | None = None,
        buffers: Tensor | None = None,
    ) -> tuple[Updates, Any]:
        """(updates, memory): what it makes of updates that the adversary made up, with the
        adversary's data as root set, and what it remembers then. It starts from the ``memory`` that
        an earlier call returned, from none without one; ``at`` is an earlier round, and the model
        (d,) that it began with, in place of the present ones; ``buffers`` (n, e) are the changes of
        the buffers that come with the updates, without them nobody's changed.
        """


@dataclass(frozen=True, kw_only=True)
class AttackView(RoundView):
    """What the adversary may know: the global model and the data of its own clients; besides them,
    if it KNOWS = "defense", the defense in use, and if it KNOWS = "all", the honest rows. Its
    generator is named by (seed, "attack", round), the stage, and the function that is given the
    view.
    """

    # (params (d,), samples) → update (d,): the local training of an honest client
    train: Callable[[Tensor, Samples], Tensor]
    # () → (m, d): what the members would send as honest clients, trained on the very batches
    # that they are dealt in this round; what is left of a malicious row less its own is the poison
    unpoisoned: Callable[[], Tensor]
    samples: Callable[[], Samples]  # use ``data``
    sizes: tuple[int, ...]  # samples of each malicious client
    kind: Kind
    clients: int  # malicious clients in the experiment
    # (m,) indices of the malicious clients that attack in this round; empty outside a round
    members: Tensor
    total: int  # clients in this round's cohort
    # of this round's sample weight that these hold; the malicious share outside a round
    share: float
    server_lr: float
    # the dataset's external edge cases: train, test, labeled with their target
    edge_cases: Callable[[], tuple[Samples, Samples]] | None
    vocabulary: Mapping[str, int] | None = None  # of text: word → token id
    # (x, y, index) → (x, y): a batch of malicious client ``index``, as the stages before this one
    # poison it; as it is for the first stage and outside a round
    poison: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]] = lambda x, y, index: (x, y)
    # () → (m, e): the changes of the buffers that come with the ``unpoisoned`` updates
    unpoisoned_buffers: Callable[[], Tensor] = lambda: no_buffers().changes
    # (classes,): of the classes in the loss of local training, where the model has some
    class_weights: Tensor | None = None
    test: Samples | None = None  # only while the triggered test set is built
    honest: Tensor | None = None  # (n - m, d) honest rows, only for stages with KNOWS = "all"
    # the defense in use, run by the adversary; only with KNOWS = "defense"
    defend: RunDefense | None = None
    # (p,) what its first client remembers, or was told to begin with, where a stage of the defense
    # has clients remember
    carried: Tensor | None = None
    # indices of malicious clients → the view with what these alone have of their own: the model,
    # training, what their first one remembers, and their data where they run the defense; None: the
    # view is of these already
    among: Callable[[Sequence[int]], AttackView] | None = None

    @property
    def data(self) -> Samples:
        """The samples of all malicious clients, client after client, x as the model call takes it;
        made when first asked for.
        """
        return self.samples()

    def own(self, index: int) -> Samples:
        """The samples of malicious client ``index``."""
        start, stop = sum(self.sizes[:index]), sum(self.sizes[: index + 1])
        return Samples(self.data.x[start:stop], self.data.y[start:stop])


class Step(NamedTuple):
    """One local step of a malicious client: its batch as it was dealt, and as the stages of the
    attack poison it.
    """

    clean: Samples
    poisoned: Samples

    @property
    def where(self) -> Tensor:
        """Which samples of the batch (b,) are poisoned: an input or a label is another one."""
        (x, y), (attacked, target) = self
        return (attacked != x).flatten(1).any(1) | (target != y)

    @property
    def changed(self) -> Samples:
        """The poisoned samples among those of the batch."""
        (attacked, target), where = self.poisoned, self.where
        return Samples(attacked[where], target[where])


@dataclass(frozen=True, kw_only=True)
class TrainView(RoundView):
    """What one malicious client has for local training of its own making.

    Unlike an honest client's, its model is in evaluation mode while it trains: batch normalization
    uses the stored statistics, dropout is off, and floating-point buffers are sent as they came
    (unless ``craft_buffers`` changes them). Its generator is named by (seed, "malicious training",
    round, client).
    """

    index: int  # counts the malicious clients from 0
    steps: tuple[Step, ...]  # the local steps that the client would take
    # (logits (b, classes), y (b,)) → the mean cross-entropy that local training minimizes, with
    # the model's class weights where it has some
    loss: Callable[[Tensor, Tensor], Tensor]
    minimise: Minimize


@dataclass
class Memory:
    """What an optimizer remembers from one call of :class:`Minimize` to the next: momentum.

    Written by the call that it is given to; empty until then.
    """

    value: Any = None


class Minimize(Protocol):
    """Local training on a loss: the spec's optimizer takes one step for each batch."""

    def __call__(
        self,
        loss: Callable[[Tensor, Step], Tensor],
        start: Tensor | None = None,
        steps: Sequence[Step] | None = None,
        rates: Sequence[float] | None = None,
        memory: Memory | None = None,
    ) -> Tensor:
        """``loss(params (d,), step)`` → scalar, differentiable; ``start`` (d,), the global
        parameters unless given → parameters (d,). A loss that does not depend on the parameters
        moves nothing. ``rates`` holds for each step a factor on the learning rate, which is the
        honest one unless a stage sets another. With a ``memory`` the optimizer goes on as the last
        call with it left off, else it starts anew.

        What other stages of the attack ask for holds here too: their objectives are added, their
        constraints applied after each step.
        """


class Prepare(Protocol[State_co]):
    """What a client remembers during its local steps of one round."""

    def __call__(self, view: ClientView, /) -> State_co:
        """Asked once for each client and round, before its first step."""


class ChangeBatch(Protocol[State_contra]):
    """A batch of an honest client as the defense lets it train on it."""

    def __call__(
        self,
        memory: State_contra,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
        /,
    ) -> tuple[Tensor, Tensor]:
        """(x, y) of the same shapes; ``memory`` is what ``prepare`` made, None without one."""


class ChangeGradient(Protocol):
    """The gradient of a local step as the defense lets the client follow it."""

    def __call__(
        self,
        grad: Tensor,
        delta: Tensor,
        noise: Callable[[], Tensor],
        /,
    ) -> Tensor:
        """(…, d), on one row or on a block of rows. ``delta`` (…, d) is how far the client has
        moved; ``noise()`` gives standard normal draws (…, d), each client's its own.
        """


class Private(NamedTuple):
    """A part of the model that no client sends: each keeps its own from round to round.

    Rows hold 0 there, whoever sends them. The server's model has the values before the first round
    there, from which every client starts.
    """

    # norms: parameters and statistics of BatchNorm layers; head: the last linear layer
    part: Literal["norms", "head"]
    # None: it is trained with the rest; else alone for so many epochs, and then the rest alone
    epochs: int | None = None


class LocalStep(NamedTuple):
    """A local step of an honest client, once its optimizer has taken it."""

    number: int  # from 1
    grad: Tensor  # (d,) that it followed
    before: Tensor  # (d,) how far the client had moved from the model that it was sent
    delta: Tensor  # (d,) how far it has moved now


class ChangeStep(Protocol[StateT]):
    """Where a local step leads to as the defense has it."""

    def __call__(self, memory: StateT, step: LocalStep, /) -> tuple[Tensor, StateT]:
        """(delta (d,), memory for the next step); ``memory`` is at first what ``prepare`` made."""


class Carry(NamedTuple, Generic[StateT]):
    """What an honest client remembers from round to round, one vector (p,), and what it makes of
    its training with that. ``prepare`` is given it, and makes of it the memory of the round.
    """

    first: Callable[[RoundView], Tensor]  # (p,) of clients that have not trained yet
    # memory → delta (d,) from the model that the client is sent to the one at which it begins
    begin: Callable[[StateT], Tensor]
    # (memory, delta (d,)) → (the row that it sends (d,), what it remembers (p,))
    finish: Callable[[StateT, Tensor], tuple[Tensor, Tensor]]


class Local(NamedTuple, Generic[StateT]):
    """How a defense changes the local training of honest clients; clients that attack in a round do
    not follow it, but for what is private: that they keep, too, as they have trained it.

    Each function is None unless the stage changes it. No function may change its arguments.
    """

    prepare: Prepare[StateT] | None = None
    batch: ChangeBatch[StateT] | None = None
    gradient: ChangeGradient | None = None
    private: Private | None = None
    # a model of its own that a client trains beside the one it sends, and uses in its place: the
    # gradient of a step, ``delta`` being how far it is from the model that the client was sent
    personal: ChangeGradient | None = None
    step: ChangeStep[StateT] | None = None
    carry: Carry[StateT] | None = None


class ScoreInputs(Protocol):
    """What a model makes of the inputs that are to be labeled."""

    def __call__(
        self,
        params: Tensor,
        change: Callable[[Tensor], Tensor] | None = None,
        /,
    ) -> Tensor:
        """Parameters (d,) → logits (N, classes). ``change`` is what becomes of the inputs before,
        some of them (b, …) at a time, images in [0, 1]; they keep their shape.
        """


@dataclass(frozen=True)
class PredictView:
    """What the defended model has where it labels inputs: itself, and what it makes of them."""

    params: Tensor  # (d,) the final model
    scores: ScoreInputs
    generator: torch.Generator  # named by (seed, "predict", round): all inputs meet the same draws
    # (params (d,), x (b, …)) → logits (b, classes) of any other inputs
    model: Callable[[Tensor, Tensor], Tensor] | None = None
    root: Samples | None = None  # the server's samples, images in [0, 1], where it has any


class Prediction(NamedTuple):
    """The labels of N inputs. A rejected input counts neither as right nor as a success of the
    attack.
    """

    label: Tensor  # (N,) int64; -1: rejected, or no finite output
    # (N,) float64: how large an attack is certified to be without effect; 0: not certified
    radius: Tensor | None = None


class StartDefense(Protocol[State_co]):
    """The state of a defense before the first round."""

    def __call__(self, view: ServerView, /) -> State_co:
        """Asked once; ``view.round`` is 0."""


class Apply(Protocol[StateT]):
    """What a defense makes of the rows of a round."""

    def __call__(
        self,
        updates: Updates,
        state: StateT,
        view: ServerView,
        /,
    ) -> tuple[Updates, StateT]:
        """(updates, state), as :class:`Updates` says what may change."""


class Finish(Protocol[State_contra]):
    """The final model repaired."""

    def __call__(self, state: State_contra, view: ServerView, /) -> Tensor:
        """(d,), once after the last round; ``view.params`` is the model so far."""


class Send(Protocol[StateT]):
    """The model that a round's clients are sent, where it is not the last aggregate."""

    def __call__(self, state: StateT, view: ServerView, /) -> tuple[Tensor, StateT]:
        """(params (d,), state); ``view.params`` is the last aggregate."""


class Predict(Protocol):
    """How the final model labels inputs, where it is not by its largest output."""

    def __call__(self, view: PredictView, /) -> Prediction:
        """The labels of the inputs that ``view.scores`` is about."""


class FollowSection(Protocol):
    """``follow`` of a chain on a section of the coordinates, where all stages go by them."""

    def __call__(self, updates: Updates, /) -> tuple[Updates, Shares]:
        """(updates, shares); the rows have the section's coordinates."""


class Follow(Protocol[StateT]):
    """``apply`` of a chain, and how much each client counts in what it returns."""

    def __call__(
        self,
        updates: Updates,
        state: StateT,
        view: ServerView,
        /,
    ) -> tuple[Updates, StateT, Shares]:
        """As :class:`Apply`, with the shares of the clients."""


# What a stage has to have before it: whole rows, or as many of their coordinates as there are. In
# the second case it makes the same of a coordinate wherever that stands and whatever the others
# are, but for what ``robust`` tells of whole rows (norms, distances, angles, length); it keeps no
# state and looks at no view. So a matrix that fits nowhere can be defended in sections.
Scope = Literal["rows", "coordinates"]


def no_state(_: ServerView) -> Any:
    """The ``init`` of a stage that keeps nothing between rounds."""


def as_they_are(
    updates: Updates,
    state: Any,
    _: ServerView,
) -> tuple[Updates, Any]:
    """The ``apply`` of a stage that leaves the rows alone."""
    return updates, state


class Defense(NamedTuple, Generic[StateT]):
    """A defense stage: pure functions that must not change their arguments.

    A stage names only what it does; a type checker holds all of it to one state.
    """

    init: StartDefense[StateT] = no_state
    apply: Apply[StateT] = as_they_are
    local: Local[Any] | None = None  # where honest clients train differently
    finish: Finish[StateT] | None = None
    send: Send[StateT] | None = None
    predict: Predict | None = None
    scope: Scope = "rows"  # what ``apply`` has to have before it
    follow: Follow[StateT] | None = None  # of a chain; a stage leaves it out
    follow_section: FollowSection | None = None  # likewise


class Training(NamedTuple):
    """How malicious clients train where they differ from honest ones; None: as honest ones."""

    epochs: int | None = None
    lr: float | None = None


class TestSet(NamedTuple):
    """A triggered test set. ``truth`` is -1 where no true label exists."""

    x: Tensor  # (N, …)
    wanted: Tensor  # (N,) the label the attacker wants; -1: the sample is not attacked
    truth: Tensor  # (N,)
    # its inputs are the clean ones of ``view.test`` under the trigger, in the same order
    paired: bool = False
    # (N,) whose input it is, from 0, where several adversaries attack; all of one stand together
    group: Tensor | None = None


TestSet.__test__ = False  # type: ignore[attr-defined]  # not a test class, whatever pytest thinks of its name


class StartAttack(Protocol[State_co]):
    """The state of an attack before the first round."""

    def __call__(self, view: AttackView, /) -> State_co:
        """Asked once; nobody is a member of the round yet."""


class Plan(Protocol[StateT]):
    """What an attack prepares before each attacked round, e.g. a trigger that it optimizes."""

    def __call__(self, state: StateT, view: AttackView, /) -> StateT:
        """The state of the round."""


class Poison(Protocol[State_contra]):
    """A batch of a malicious client as the attack wants it trained on."""

    def __call__(
        self,
        state: State_contra,
        x: Tensor,
        y: Tensor,
        index: int,
        generator: torch.Generator,
        /,
    ) -> tuple[Tensor, Tensor]:
        """(x, y) of the same shapes; ``index`` counts the malicious clients from 0."""


class Constrain(Protocol[State_contra]):
    """How far a malicious client may have moved after a local step."""

    def __call__(
        self,
        state: State_contra,
        delta: Tensor,
        step: int,
        /,
    ) -> Tensor:
        """(…, d), on one row or on a block of rows; ``step`` counts from 1."""


class Objective(Protocol[State_contra]):
    """What is added to the loss of malicious clients."""

    def __call__(
        self,
        state: State_contra,
        delta: Tensor,
        x: Tensor,
        y: Tensor,
        logits: Tensor,
        /,
    ) -> Tensor:
        """A scalar, differentiable in ``delta`` (d,) and ``logits`` (b, classes)."""


class Pace(Protocol[State_contra]):
    """The factor on the learning rate of malicious clients in a round."""

    def __call__(self, state: State_contra, /) -> float:
        """1 leaves it as it is."""


class TrainOwn(Protocol[State_contra]):
    """Local training of a malicious client of the attack's own making."""

    def __call__(self, state: State_contra, view: TrainView, /) -> Tensor:
        """Its update (d,), in place of its local steps."""


class Craft(Protocol[State_contra]):
    """What malicious clients send, after local training."""

    def __call__(
        self,
        state: State_contra,
        rows: Tensor,
        view: AttackView,
        /,
    ) -> Tensor:
        """(m, d) → (m, d); as ``craft_buffers``, (m, e) → (m, e), the changes of buffers."""


class Remember(Protocol[StateT]):
    """What an attack keeps of a round once its rows are sent."""

    def __call__(
        self,
        state: StateT,
        rows: Tensor,
        view: AttackView,
        /,
    ) -> StateT:
        """The state for the next round; ``rows`` (m, d) are those sent."""


class Asked(NamedTuple):
    """What malicious clients are asked in a validation round."""

    question: Question
    own: Tensor  # (k,) bool: which models the attack has a part in
    # (m, k, s) float64: the honest answers, or those of the stages before
    scores: Tensor


class Testify(Protocol[State_contra]):
    """What malicious clients answer in a validation round."""

    def __call__(
        self,
        state: State_contra,
        asked: Asked,
        view: AttackView,
        /,
    ) -> Tensor:
        """(m, k, s), finite; the view has no honest rows."""


class Trigger(Protocol[State_contra]):
    """Triggered inputs of clean ones, for evaluation."""

    def __call__(
        self,
        state: State_contra,
        x: Tensor,
        generator: torch.Generator,
        /,
    ) -> Tensor:
        """Of the same shape; images stay in [0, 1]."""


class Goal(Protocol[State_contra]):
    """The labels that the attacker wants."""

    def __call__(self, state: State_contra, y: Tensor, /) -> Tensor:
        """For true labels (b,); -1 where a sample is not attacked."""


class BuildTestSet(Protocol[State_contra]):
    """A triggered test set, instead of a trigger, for attacks with inputs of their own and for
    those whose trigger needs more than the input: its label, the model, a target of its own.
    """

    def __call__(self, state: State_contra, view: AttackView, /) -> TestSet:
        """``view.test`` holds the clean one. Asked once for a state: what the set takes of the
        model, the state has to hold.
        """


class Attack(NamedTuple, Generic[StateT]):
    """An attack stage: each function is None unless the stage changes it. No function may change
    its arguments; a type checker holds all of them to one state.
    """

    init: StartAttack[StateT] | None = None
    plan: Plan[StateT] | None = None
    poison: Poison[StateT] | None = None
    constrain: Constrain[StateT] | None = None
    objective: Objective[StateT] | None = None
    training: Training | None = None  # where malicious clients train differently
    pace: Pace[StateT] | None = None
    train: TrainOwn[StateT] | None = None
    craft: Craft[StateT] | None = None
    craft_buffers: Craft[StateT] | None = None  # after ``craft``, where the model has buffers
    remember: Remember[StateT] | None = None  # after both
    testify: Testify[StateT] | None = None  # None: lies (``backstop.platform.threats.lies``)
    trigger: Trigger[StateT] | None = None
    goal: Goal[StateT] | None = None
    test_set: BuildTestSet[StateT] | None = None


class Record(NamedTuple):
    """What one evaluated round reports. Metrics hold no costs: the same spec gives the same
    metrics.
    """

    id: str
    round: int
    metrics: Mapping[str, float]
    # seconds and memory since the last record: time/…_s, memory/…_mib
    costs: Mapping[str, float] = {}


def stateless(function: Callable[[Updates], Updates], scope: Scope = "rows") -> Defense:
    """A defense that keeps nothing between rounds and needs no view."""
    return Defense(
        apply=lambda updates, state, view: (function(updates), state),
        scope=scope,
    )


def merge(updates: Updates, row: Tensor) -> Updates:
    """One merged row (d,) in place of all rows, with the weight of all of them."""
    weight = updates.weight.sum().reshape(1)
    return Updates(row.reshape(1, -1), weight, updates.client.new_full((1,), -1))


def select(updates: Updates, chosen: Tensor) -> Updates:
    """The chosen rows keep their weight, all others get 0. ``chosen`` holds truth values (n,) or
    row numbers (k,).
    """
    mask = updates.client.new_zeros(len(updates.client)).bool()
    mask[chosen.to(mask.device)] = True
    return updates._replace(weight=updates.weight.where(mask, 0.0))


def equal_weights(updates: Updates) -> Updates:
    """All rows that have a weight with the same one, their mean weight: the server's mean of them
    is the plain one.
    """
    kept = updates.weight > 0
    return updates._replace(weight=kept * (updates.weight.sum() / kept.sum().clamp_min(1)))


class BrokenStage(Exception):  # noqa: N818 -- it names what happened, as BadInput does
    """A stage raised, or returned what no stage may return. The run ends with its one line.

    >>> error = BrokenStage("defense krum", "ValueError: no luck")
    >>> error.locate(2)
    >>> print(error)
    defense krum: round 3: ValueError: no luck
    """

    def __init__(self, stage: str, reason: str) -> None:
        """``stage`` is its kind and name, e.g. ``defense krum``."""
        super().__init__(stage, reason)
        self.stage, self.reason = stage, reason
        self.round: int | None = None  # counted from 0; the line counts from 1, as progress does
        self.client: int | None = None

    def locate(self, round_index: int, client: int | None = None) -> None:
        """Say in which round and at which client it was; what is known already stays."""
        self.round = round_index if self.round is None else self.round
        self.client = client if self.client is None else self.client

    def __str__(self) -> str:
        """One line: stage, round, client, reason."""
        where = [] if self.round is None else [f"round {self.round + 1}"]
        if self.client is not None:
            where.append(f"client {self.client}")
        return ": ".join([self.stage, *where, self.reason])
