"""Adaptive: malicious clients try on the defense itself how far they can go, whatever defense it
is.

u_i <- h̄ + ργ (u_i - h̄)  (apart)   or   h̄ + ργ (ū - h̄)  (together)
γ and form = argmin |‖d‖ - η p(γ)|,   p(γ) = ⟨g(γ) - g(0), d⟩ / ‖d‖,   d = ū - h̄

with ū the mean of the malicious rows, h̄ that of what the same clients would have sent as honest
ones, trained on the same batches in the same order, and g(γ) the step that the defense makes of
such rows (ρ = 1) among honest ones of the adversary's own making. p is what the defense lets
through of the poison d. With η p = ‖d‖ the global model takes all of it, which is model
replacement; more is of no use.

Without a defense γ = n / (mη). Where rows are rejected p drops to zero and γ stays just below;
where they are clipped p levels off; medians and sign votes let through more the larger γ is. Rows
that are alike are nearer to each other and add up, but look like copies: which form is better is
the defense's affair, so both are tried. The rehearsed honest rows are not the honest rows: what is
just kept among the first is often rejected among the others. Hence the margin ρ, which costs little
where nothing is rejected.

γ is sought among 7 values from 0.1 to ``high``, equally far apart in log scale, then by halving the
intervals (in log scale) beside the best of them: where a defense keeps rows at some factors and not
at others in between, the scan still finds the best region.

A defense that remembers is no excuse: with ``history`` the adversary carries a copy of it from
attacked round to attacked round. Each global model is public, so once the next one is there it
steps its copy on the round that is over: on that model, on the honest rows that it rehearsed then
and on the rows that it sent. Where the copy remembers its own step of that round (the center of
``centered_clipping``), the real one, (w_t - w_s) / (η (t - s)) since the attacked round s, takes
its place. The rehearsed rows are few people's data, so what the copy makes of its memory can be
wrong (``foolsgold`` takes rehearsed clients for sybils of each other). The public steps tell: in
each attacked round the copy with its memory and one without are held against the real step along
the poison, and asked is the one whose errors so far add up to less, the one that remembers where
they are equal.

Shapes: rows (m, d) → (m, d); the state is the copy's memory, the rehearsed rows and the last round.

Source: of this project. That the factor is searched for against a known aggregator is the idea of
the tailored attacks in V. Shejwalkar, A. Houmansadr, "Manipulating the Byzantine: Optimizing Model
Poisoning Attacks and Defenses for Federated Learning", NDSS 2021.

Deviations: another common definition is the largest γ whose rows the defense keeps. Where it does
not keep or reject rows but rescales or outvotes them there is none, and without a defense it
destroys the model; what comes through is a measure for all defenses. Rounds without an attacker are
not replayed, and honest clients are the same ones in every round, where a federation draws others.

Checked: against rules whose best factor is known (none, norm clipping, Multi-Krum, medians), and
the copy's memory against that of the defense where the rehearsed rows are the real ones, in this
project's tests.

Cost: honest local trainings as many as clients in the round, and 17 + 2 ``steps`` runs of the
defense.

Example:
>>> import torch
>>> from backstop.platform.examples import attack_view
>>> no_defense = lambda updates, memory=None, at=None: (updates, None)
>>> view, attack = attack_view(update=torch.zeros(1), defend=no_defense), adaptive(margin=1.0)
>>> # one of three replaces the model
>>> attack.craft(attack.plan(None, view), torch.tensor([[5.0]]), view).round()
tensor([[15.]])
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isfinite, sqrt
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView, Updates
from backstop.platform.params import Range
from backstop.platform.threats.rehearsal import cohort_of, honest_rows, replaced, step_of

VERSION = 3
KNOWS = "defense"
STRENGTH = "high"
TRIGGER = False

_LOW, _SCANNED = 0.1, 7


class _Past(NamedTuple):
    """An attacked round that is over."""

    round: int
    params: Tensor  # (d,) the model that it began with
    updates: Updates  # the rehearsed honest rows, and those that were sent
    poison: Tensor  # (d,) the mean of those sent less that of the rehearsed ones


class _Copy(NamedTuple):
    """The adversary's own copy of the defense."""

    memory: Any = None  # None: it is fresh
    error: float = 0.0  # of the steps along the poison that it told so far
    error_without: float = 0.0  # of those that a fresh one told

    @property
    def advice(self) -> Any:
        """The memory that the defense is run with: none where a fresh copy tells more."""
        return self.memory if self.error <= self.error_without else None


class _State(NamedTuple):
    copy: _Copy
    honest: Tensor  # (k, d) rehearsed for this round
    past: _Past | None  # the last attacked round, once it is over


class _Form(NamedTuple):
    """Rows in one form, and a factor on what the poison adds to them."""

    missing: float  # how much less, or more, than all of the poison comes through
    factor: float
    together: bool


def _replayed(state: _State | None, view: AttackView) -> _Copy:
    """The adversary's copy once it has seen the last attacked round."""
    if state is None:
        return _Copy()
    copy, past = state.copy, state.past
    if past is None:
        return copy
    assert view.defend is not None
    then = (past.round, past.params)
    moved = (view.params - past.params) / (view.server_lr * (view.round - past.round))

    def error(told: Tensor) -> float:
        return abs(((told - moved).double() * past.poison.double()).sum().item())

    after, memory = view.defend(past.updates, copy.memory, then)
    fresh, _ = view.defend(past.updates, None, then)
    return _Copy(
        memory=replaced(memory, step_of(after), moved),
        error=copy.error + error(step_of(after)),
        error_without=copy.error_without + error(step_of(fresh)),
    )


def _scan(high: float) -> tuple[float, list[float]]:
    """The factors that are tried, and the ratio of one to the one before."""
    ratio = (high / _LOW) ** (1 / (_SCANNED - 1))
    return ratio, [_LOW * ratio**step for step in range(_SCANNED)]


def _search(
    missing: Callable[[bool, float], float],
    high: float,
    steps: int,
) -> _Form:
    """The form and the factor at which least is missing."""
    ratio, scan = _scan(high)
    least, factor, together = min(
        (missing(together, factor), factor, together)
        for together in (False, True)
        for factor in scan
    )
    low, top = max(factor / ratio, _LOW), min(factor * ratio, high)
    for _ in range(steps):
        below, above = sqrt(low * factor), sqrt(factor * top)
        less, nearer = min((missing(together, below), below), (missing(together, above), above))
        if less >= least:
            low, top = below, above
        else:
            low, top = (low, factor) if nearer < factor else (factor, top)
            least, factor = less, nearer
    return _Form(least, factor, together)


def adaptive(
    *,
    high: Annotated[
        float,
        Range(1, 1e4, log=True, search=(1, 100)),
        "largest factor tried on what the poison adds, γ",
    ] = 100.0,
    margin: Annotated[
        float,
        Range(0, 1, low_open=True, search=(0.3, 1)),
        "share of the best factor that is sent, ρ",
    ] = 0.6,
    steps: Annotated[
        int,
        Range(0, 50, search=(0, 10)),
        "halvings of the intervals beside the best factor of the scan",
    ] = 5,
    history: Annotated[
        bool, "whether the copy of the defense remembers earlier rounds; false: a fresh one each"
    ] = True,
) -> Attack[_State | None]:
    """The malicious rows, pushed to where most comes through the defense, no more than all."""

    def plan(state: _State | None, view: AttackView) -> _State:
        honest = honest_rows(view, view.total - len(view.members))
        return _State(_replayed(state, view), honest, None)

    def craft(state: _State | None, rows: Tensor, view: AttackView) -> Tensor:
        assert state is not None
        assert view.defend is not None
        defend, others = view.defend, state.honest
        honest = view.unpoisoned().mean(0)
        forms = [rows - honest, (rows.mean(0) - honest).expand_as(rows)]
        poison = forms[1][0].double()
        length = poison.square().sum().sqrt().clamp_min(torch.finfo(torch.float64).tiny)

        def sent(together: bool, factor: float) -> Tensor:
            return honest + factor * forms[together]

        def through(together: bool, factor: float) -> Tensor:
            given = cohort_of(others, sent(together, factor), view)
            after, _ = defend(given, state.copy.advice)
            return (step_of(after).double() * poison).sum() / length

        without = through(False, 0.0)

        def missing(together: bool, factor: float) -> float:
            gain = view.server_lr * (through(together, factor) - without)
            rest = (length - gain).abs().item()
            return rest if isfinite(rest) else inf

        found = _search(missing, high, steps)
        return sent(found.together, margin * found.factor).nan_to_num()

    def remember(state: _State | None, rows: Tensor, view: AttackView) -> _State:
        assert state is not None
        updates = cohort_of(state.honest, rows, view)
        poison = rows.mean(0) - (state.honest.mean(0) if len(state.honest) else 0)
        past = _Past(view.round, view.params, updates, poison)
        return _State(state.copy, rows[:0], past)

    return Attack(plan=plan, craft=craft, remember=remember if history else None)
