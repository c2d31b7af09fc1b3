"""A defense as a library: an object that aggregates the updates of any federation.

    import backstop

    median = backstop.defense("norm_clip(norm=1)+median")
    aggregate = median.aggregate(updates)  # of n clients, in the form of one client's

It makes of updates what the server of an experiment makes of them, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform import plugins, seeds
from backstop.platform.contract import BrokenStage, Defense, Shares, as_they_are
from backstop.platform.library.forms import arrays_of, form_of
from backstop.platform.library.identities import Id, Identities
from backstop.platform.library.needs import HOW, NOWHERE, elsewhere, explain, needs_of
from backstop.platform.library.reading import (
    Basis,
    Extras,
    Rows,
    in_rows,
    read_basis,
    read_updates,
)
from backstop.platform.params import BadInput, check
from backstop.platform.specs.part import Part, chain_text, complete_part, parse_part, to_chain
from backstop.platform.specs.spec import Spec, check_defense, complete_optimizer, scalar_fields
from backstop.platform.training.defense_chain import chain
from backstop.platform.training.matrix import WholeMatrix
from backstop.platform.training.network import size
from backstop.platform.training.server_step import keep_finite, server_step
from backstop.platform.training.stage_errors import located
from backstop.platform.workers.clients import one_thread

SCALARS = ("seed", "server_lr", "local_epochs", "batch")  # of the spec, that a caller may set
OWN_DRAWS = "layers of the caller's model"  # names what these draw, e.g. dropout


def defense(
    stages: str | Part | Sequence[Part | str],
    *,
    seed: int = 0,
    server_lr: float = 1.0,
    local_epochs: int = 1,
    batch: int = 64,
    optimizer: str | Part = "sgd",
) -> Aggregator:
    """A defense that aggregates the updates of any federation, round after round.

    ``stages`` is a chain as the command line takes it, ``"norm_clip(norm=1)+median"``, a
    :class:`Part` or a list of them. ``seed`` names the draws of defenses that draw: the same
    sequence of calls gives the same bytes. ``server_lr`` is the factor that the server puts on the
    aggregate: some defenses reckon with it, and ``aggregate_models`` applies it. ``local_epochs``,
    ``batch`` and ``optimizer`` say how clients train, for defenses whose server trains like one on
    its root set (``fltrust``, ``monna``).

    Raises :class:`BadInput` for a chain that makes no sense, for a parameter out of its range, and
    for a defense that is no aggregation: one that changes how clients train, or only repairs the
    final model.
    """
    parts = _read_chain(stages)
    check_defense([complete_part(part, "defenses") for part in parts], root_size=1)
    for part in parts:
        _check_aggregates(part)
    values = (seed, server_lr, local_epochs, batch)
    scalars = {
        name: check(scalar_fields()[name], value, "defense")
        for name, value in zip(SCALARS, values, strict=True)
    }
    trained = complete_optimizer(parse_part(optimizer))
    return Aggregator(Spec(defense=parts, optimizer=trained, **scalars))


def _read_chain(stages: Any) -> tuple[Part, ...]:
    several = isinstance(stages, list | tuple) and not isinstance(stages, Part)
    for stage in stages if several else [stages]:
        if not isinstance(stage, str | Part):
            raise BadInput(
                f"defense: {stage!r} is no stage; give a chain as text, norm_clip(norm=1)+median, a"
                " backstop.Part, or a list of them"
            )
    return to_chain(stages, "defense")


def _check_aggregates(part: Part) -> None:
    """Raise BadInput for a stage that does nothing, or not all, of what it does to updates."""
    stage: Defense = plugins.build("defenses", part.name, part.params)
    if stage.local:
        does = "changes how clients train, which no aggregation of their updates can"
    elif stage.apply is as_they_are and stage.finish:
        does = "repairs the final model and leaves updates as they are"
    elif stage.apply is as_they_are and stage.predict:
        does = "labels inputs and leaves updates as they are"
    elif "validation" in plugins.defense_facts(part.name).needs:
        does = NOWHERE["validate"]
    else:
        return
    raise BadInput(f"defense {part.name} {does}; {elsewhere(part.name)}")


class _Sent(NamedTuple):
    """What the clients of the round at hand were sent."""

    params: Tensor  # (d,)
    state: Any  # of the chain, after that


class _Memory(NamedTuple):
    """What is kept between rounds."""

    state: Any  # of the chain
    length: int  # d
    identities: Identities = Identities()
    sent: _Sent | None = None  # in this round, where the chain says what
    nameless: int | None = None  # clients of the last round, where they had no ids


class Aggregator:
    """A defense with its state, as :func:`defense` makes it. It can be pickled and copied at any
    time; a call that raises leaves it as it was.

    An *update* is what a client changed: its parameters after local training less those that it was
    sent. Updates are an array (n, d) with a row for each client, or a list with an update for each:
    a flat vector (d,), a list of arrays, or a mapping from names to arrays (a state dict); all of
    NumPy or all of torch. What comes back has the form of one update: container, names, shapes,
    dtypes and device are those of the first client's. In between all is float32.

    Of lists and mappings the floating-point arrays are the parameters that the defense sees, except
    statistics of normalization layers: what ``model`` has as floating-point buffers or, without a
    model, what has a name that ends in ``running_mean`` or ``running_var``. These are averaged with
    the weights that the defense leaves the clients. Integers (``num_batches_tracked``) are never
    aggregated: they are zero in an aggregate, and those of ``params`` in a new model.

    A client whose update holds a NaN or an infinity is left out. Where nobody is left, nothing
    moves. A round is computed with one thread, on the device of the updates.

    ``round`` is the number of rounds done; ``kept`` says of the last one how much each client
    counts, from its weight down to 0, where stages merge updates as much as before that.
    """

    def __init__(self, spec: Spec) -> None:
        """``spec`` holds the chain, the seed, and how clients train."""
        self.spec = spec
        self.reset()

    def reset(self) -> None:
        """Forget all rounds: the next one is the first."""
        self.round = 0
        self.kept: dict[Id, float] = {}
        self._memory: _Memory | None = None

    def __repr__(self) -> str:
        """The call that makes it, and the rounds done.

        >>> defense("krum(f=2)", seed=1)
        backstop.defense('krum(f=2)', seed=1)  # 0 rounds
        """
        written = [repr(chain_text(self.spec.defense, "defense"))]
        for name in SCALARS:
            value = getattr(self.spec, name)
            if value != scalar_fields()[name].default:
                written.append(f"{name}={value!r}")
        if self.spec.optimizer != complete_optimizer(Part("sgd")):
            written.append(f"optimizer={str(self.spec.optimizer)!r}")
        rounds = "1 round" if self.round == 1 else f"{self.round} rounds"
        return f"backstop.defense({', '.join(written)})  # {rounds}"

    @property
    def needs(self) -> tuple[str, ...]:
        """What ``aggregate`` has to be given besides updates: some of ``params``, ``model``,
        ``root`` and ``weights``; ``layers`` where flat vectors are not enough without a model.
        """
        needed = {need for part in self.spec.defense for need in needs_of(part)}
        return tuple(need for need in HOW if need in needed)

    @property
    def sends(self) -> bool:
        """Whether the defense changes the model that clients are sent, so that each round begins
        with :meth:`send`.
        """
        return self._chain().send is not None

    def send(self, params: Any, *, model: Any = None, root: Any = None) -> Any:
        """The model that this round's clients have to be sent in place of the global one,
        ``params``; in its form, a copy.

        Most defenses leave it as it is. ``crfl`` adds noise, ``indicator`` plants samples, and
        ``fldetector`` goes back to the first model: with these in the chain (:attr:`sends`) each
        round begins with this call, and what it returns is the ``params`` of the other methods.
        """
        form = form_of(params, "params")
        with self._computing(model):
            extras = Extras(params, model, root)
            basis = read_basis(form, extras, self.spec, self.round, first="params")
            with self._explaining(basis):
                memory = self._begun(basis)
                sent = _send(self._chain(), memory.state, basis)
            result = basis.whole_model(sent.params, basis.buffers)
            arrays = arrays_of(result, form, "params", "params")
            back = basis.places.param_values(arrays, form.device)  # it may have less digits
        if self.sends:
            self._memory = memory._replace(sent=sent._replace(params=back))
        return result

    def aggregate(
        self,
        updates: Any,
        weights: Any = None,
        clients: Any = None,
        *,
        params: Any = None,
        model: Any = None,
        root: Any = None,
    ) -> Any:
        """The aggregate of a round's updates, in the form of one: the server adds it, times
        ``server_lr``, to the model that the clients were sent.

        ``weights`` are the clients' sample counts, None: all count the same. ``clients`` are their
        ids, whole numbers or names, so that the order of the updates does not matter. Without ids,
        a defense that follows clients from round to round (``foolsgold``, ``flanders``,
        ``fldetector``) takes the first update of each round for that of one client, and so on; it
        refuses another number of updates then.

        ``params`` is the model that the clients were sent, in the form of an update; ``model`` a
        torch.nn.Module with the same parameters, whose values do not matter; ``root`` clean samples
        (x, y) of the server's own, x as the model takes it. :attr:`needs` says which of them the
        defense cannot do without.

        Raises :class:`BadInput` for what is missing or does not fit, and ``BrokenStage`` where a
        stage fails on these updates.
        """
        extras = Extras(params, model, root)
        basis, moved = self._round(updates, weights, clients, extras, "updates")
        return basis.update(moved.params, moved.buffers)

    def aggregate_models(
        self,
        models: Any,
        weights: Any = None,
        clients: Any = None,
        *,
        params: Any,
        model: Any = None,
        root: Any = None,
    ) -> Any:
        """The next global model, of the whole models that the clients send after local training,
        in their form. All else is as in :meth:`aggregate`: an update is a model less ``params``,
        and ``server_lr`` times the aggregate is added to ``params``.
        """
        extras = Extras(params, model, root)
        if params is None:
            raise BadInput(f"aggregate_models needs {HOW['params']}; what was given is None")
        basis, moved = self._round(models, weights, clients, extras, "models")
        start = basis.surroundings.params
        assert start is not None
        return basis.whole_model(
            start + moved.params * self.spec.server_lr,
            basis.buffers + moved.buffers,
        )

    def _round(
        self,
        given: Any,
        weights: Any,
        clients: Any,
        extras: Extras,
        what: str,
    ) -> tuple[Basis, _Moved]:
        """Do one round with what the clients bring: ``what`` says whether it is updates or models.
        Nothing is remembered before all is done.
        """
        with self._computing(extras.model):
            brought = read_updates(given, weights, clients, what)
            basis = read_basis(
                brought.form,
                extras,
                self.spec,
                self.round,
                f"{what}[0]",
                counted=weights is not None,
            )
            nameless = len(brought.clients) if clients is None else None
            self._check_sent(basis)
            self._check_followed(nameless)
            with self._explaining(basis):
                memory = self._begun(basis)
                known = memory.identities.seeing(brought.clients)
                rows = in_rows(brought, basis, known)
                rows = rows.less(basis) if what == "models" else rows
                state = memory.sent.state if memory.sent else memory.state
                moved, state = _step(self._chain(), state, rows, basis)
        self._memory = _Memory(state, memory.length, known, nameless=nameless)
        self.kept = {client: moved.kept[client] for client in brought.clients}
        self.round += 1
        return basis, moved

    def _chain(self) -> Defense:
        """The stages as one; made anew, as functions cannot be pickled."""
        parts = self.spec.defense
        stages = [plugins.build("defenses", part.name, part.params) for part in parts]
        return chain(*stages, names=[part.name for part in parts])

    def _begun(self, basis: Basis) -> _Memory:
        """What the rounds before left; before the first one, the chain's start."""
        length = size(basis.places.layout)
        if self._memory is None:
            return _Memory(self._chain().init(basis.surroundings.view("defense")), length)
        if length != self._memory.length:
            raise BadInput(
                f"defense: {length} parameters; the rounds before had {self._memory.length}:"
                " reset() begins anew"
            )
        return self._memory

    def _check_sent(self, basis: Basis) -> None:
        """Raise BadInput where the clients did not start from what the chain sends."""
        if not self.sends:
            return
        chained = chain_text(self.spec.defense, "defense")
        how = "sent = defense.send(params), then aggregate(…, params=sent)"
        sent = self._memory.sent if self._memory else None
        if sent is None:
            raise BadInput(
                f"defense {chained} says which model clients are sent; begin each round with {how}"
            )
        params = basis.surroundings.params
        if params is None or not torch.equal(params.cpu(), sent.params.cpu()):
            raise BadInput(
                f"defense {chained}: params is not the model that send() returned for round"
                f" {self.round + 1}; {how}"
            )

    def _check_followed(self, nameless: int | None) -> None:
        """Raise BadInput where clients without ids cannot be those of the round before."""
        following = [part.name for part in self.spec.defense if _follows(part.name)]
        if self._memory is None or not self.round or not following:
            return
        before = self._memory.nameless
        if nameless != before:
            has, had = (_counted(count) for count in (nameless, before))
            raise BadInput(
                f"defense {following[0]} follows clients from round to round; this round has {has},"
                f" the one before had {had}: give clients=, the ids, in every round"
            )

    @contextmanager
    def _computing(self, model: Any) -> Iterator[None]:
        """As the platform computes: with one thread, and with draws of its own."""
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(mode=False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(one_thread())
            stack.enter_context(located(self.round))
            if model is not None:
                stack.enter_context(seeds.seeded(self.spec.seed, OWN_DRAWS, self.round))
            yield

    @contextmanager
    def _explaining(self, basis: Basis) -> Iterator[None]:
        """Say in one line what a stage lacks."""
        try:
            yield
        except BrokenStage as error:
            explained = explain(error, self.spec.defense, basis.given)
            if explained is error:
                raise
            raise explained from None


def _send(defense: Defense, state: Any, basis: Basis) -> _Sent:
    """The model that clients are to be sent, and the chain's state after that."""
    params = basis.surroundings.params
    assert params is not None
    if defense.send is None:
        return _Sent(params, state)
    return _Sent(*defense.send(state, basis.surroundings.view("defense sends")))


class _Moved(NamedTuple):
    """What a round made of what clients brought."""

    params: Tensor  # (d,) the aggregate
    buffers: Tensor  # (e,) the change of the buffers
    kept: dict[Id, float]


def _step(
    defense: Defense,
    state: Any,
    rows: Rows,
    basis: Basis,
) -> tuple[_Moved, Any]:
    """The server's step, and the chain's state after it; of rows of which none is finite, none."""
    matrix = WholeMatrix(rows.params)
    finite = keep_finite(matrix, rows.buffers)
    kept = dict.fromkeys(rows.clients, 0.0)
    if not finite.any():
        still = torch.zeros_like(rows.params[0]), torch.zeros_like(rows.buffers[0])
        return _Moved(*still, kept), state
    sent = Shares(*(column[finite] for column in rows.sent))
    view = basis.surroundings.view("defense")
    step = server_step(matrix, sent, rows.buffers[finite], defense, state, view)
    left = [rows.clients[row] for row in finite.nonzero().flatten().tolist()]
    kept |= zip(left, step.kept.tolist(), strict=True)
    return _Moved(step.defended.aggregate, step.change, kept), step.defended.state


def _follows(name: str) -> bool:
    """Whether a defense follows clients from round to round."""
    facts = plugins.defense_facts(name)
    return facts.takes == "clients" and "history" in facts.needs


def _counted(nameless: int | None) -> str:
    return "ids" if nameless is None else f"{nameless} updates without ids"
