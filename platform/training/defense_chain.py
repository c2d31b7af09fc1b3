"""Defense stages as one defense, from left to right; what a stage returns is checked before the
next one sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from backstop.platform.contract import (
    BrokenStage,
    Carry,
    ClientView,
    Defense,
    Local,
    LocalStep,
    Predict,
    ServerView,
    Shares,
    Updates,
    as_they_are,
)
from backstop.platform.params import BadInput
from backstop.platform.training.stage_errors import located, name_errors

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def without_rejected(updates: Updates) -> Updates:
    """The rows that still have a weight: what the next stage of a chain sees."""
    left = updates.weight > 0
    return updates if left.all() else Updates(*(column[left] for column in updates))


def _check_returned(
    stage: str,
    given: Updates,
    returned: Updates,
) -> None:
    """Raise :class:`BrokenStage` for what would leave the weighted mean without a meaning."""
    if not isinstance(returned, Updates):
        raise BrokenStage(stage, f"it returned {type(returned).__name__}; a stage returns Updates")
    _check_shapes(stage, given, returned)
    _check_all(
        stage,
        returned.weight.isfinite() & (returned.weight >= 0),
        "weights are NaN, infinite or negative; a stage must return finite weights of at least 0",
    )
    if returned.rows is given.rows:
        return
    _check_all(
        stage,
        # needs no second matrix
        returned.rows.amax(1).isfinite() & returned.rows.amin(1).isfinite(),
        "rows hold a NaN or an infinity; a stage must return finite rows",
    )


def _check_shapes(
    stage: str,
    given: Updates,
    returned: Updates,
) -> None:
    rows, count = returned.rows, len(returned.rows)
    if rows.ndim != 2 or rows.shape[1] != given.rows.shape[1] or rows.dtype != given.rows.dtype:
        raise BrokenStage(
            stage,
            f"rows of shape {tuple(rows.shape)} and {rows.dtype}; it was given"
            f" {tuple(given.rows.shape)}, {given.rows.dtype}, and may change the number of rows "
            "only",
        )
    if len(returned.weight) != count or len(returned.client) != count:
        raise BrokenStage(
            stage,
            f"{count} rows with {len(returned.weight)} weights and {len(returned.client)} clients;"
            " there is one of each for a row",
        )


def _check_all(
    stage: str,
    sound: Tensor,
    complaint: str,
) -> None:
    if not sound.all():
        broken = int((~sound).sum())
        raise BrokenStage(stage, f"{broken} of {len(sound)} {complaint}")


def _finite(
    stage: str,
    what: str,
    given: Tensor,
    returned: Tensor,
) -> Tensor:
    """The parameters that a stage returned. Raises :class:`BrokenStage` where it made them infinite
    or NaN.
    """
    if given.isfinite().all() and not returned.isfinite().all():
        raise BrokenStage(
            stage, f"the {what} holds a NaN or an infinity; a stage must return finite parameters"
        )
    return returned


def chain(*stages: Defense, names: Sequence[str] = ()) -> Defense:
    """One defense that applies the stages from left to right. Its state is the tuple of theirs.
    ``names`` are for its errors: what a stage raises is a :class:`BrokenStage` that names it.

    A stage sees only rows that the stages before it left some weight; where none is left, the round
    ends there. ``follow`` says how much each client counts in what is left: where a stage merges
    rows, clients count from there on as much as before that stage. Raises :class:`BrokenStage` for
    a stage that returns a row or a weight that is not finite, or a negative weight. At most one
    stage may say how the model predicts; raises BadInput otherwise.
    """
    unnamed = range(len(names) + 1, len(stages) + 1)
    called = (*names, *(f"stage {position}" for position in unnamed))
    labels = [f"defense {name}" for name in called]
    in_sections = all(map(goes_by_coordinates, stages))
    stages = tuple(map(_named, labels, stages))

    def init(view: ServerView) -> tuple[Any, ...]:
        return tuple(stage.init(view) for stage in stages)

    def follow(
        updates: Updates,
        states: tuple[Any, ...],
        view: ServerView,
    ) -> tuple[Updates, tuple[Any, ...], Shares]:
        with located(view.round):
            return _followed(labels, stages, updates, states, view)

    def follow_section(updates: Updates) -> tuple[Updates, Shares]:
        updates, _, shares = _followed(labels, stages, updates, (None,) * len(stages), None)
        return updates, shares

    def apply(
        updates: Updates,
        states: tuple[Any, ...],
        view: ServerView,
    ) -> tuple[Updates, tuple[Any, ...]]:
        updates, states, _ = follow(updates, states, view)
        return updates, states

    def finish(states: tuple[Any, ...], view: ServerView) -> Tensor:
        return _repaired(labels, stages, states, view)

    def send(states: tuple[Any, ...], view: ServerView) -> tuple[Tensor, tuple[Any, ...]]:
        after = list(states)
        for index, stage in enumerate(stages):
            if stage.send:
                params, after[index] = stage.send(states[index], view)
                params = _finite(labels[index], "model that it sends", view.params, params)
                view = _at(view, params)
        return view.params, tuple(after)

    return Defense(
        init,
        apply,
        local=_local_chain(stages, called),
        finish=finish if any(stage.finish for stage in stages) else None,
        send=send if any(stage.send for stage in stages) else None,
        predict=_predictor(stages, called),
        scope="coordinates" if in_sections else "rows",
        follow=follow,
        follow_section=follow_section if in_sections else None,
    )


def goes_by_coordinates(stage: Defense) -> bool:
    """Whether a stage makes of some of the coordinates what it makes of them in whole rows."""
    return stage.scope == "coordinates" or stage.apply is as_they_are


def only_repairs(stage: Defense) -> bool:
    """Whether all that a stage does is to change the final model."""
    others = (stage.local, stage.send, stage.predict)
    return bool(stage.finish) and stage.apply is as_they_are and not any(others)


def _followed(
    labels: Sequence[str],
    stages: Sequence[Defense],
    updates: Updates,
    states: tuple[Any, ...],
    view: ServerView | None,
) -> tuple[Updates, tuple[Any, ...], Shares]:
    """What the stages make of the rows, one after the other; where all of them go by coordinates,
    there may be no view and no state.
    """
    shares, after = Shares(updates.client, updates.weight), list(states)
    for index, stage in enumerate(stages):
        given = updates
        updates, after[index] = stage.apply(given, states[index], view)  # type: ignore[arg-type]
        _check_returned(labels[index], given, updates)
        if (updates.client >= 0).all():
            shares = Shares(updates.client, updates.weight)
        updates = without_rejected(updates)
        if not len(updates.weight):
            return updates, tuple(after), shares._replace(weight=shares.weight * 0.0)
    return updates, tuple(after), shares


def _named(label: str, stage: Defense) -> Defense:
    local = name_errors(label, stage.local) if stage.local else None
    if local and local.carry:
        local = local._replace(carry=name_errors(label, local.carry))
    return name_errors(label, stage)._replace(local=local)


def _at(view: ServerView, params: Tensor) -> ServerView:
    """The view from another model. Nothing else of it is looked at."""
    return type(view)(**{**vars(view), "params": params})


def _repaired(
    labels: Sequence[str],
    stages: Sequence[Defense],
    states: tuple[Any, ...],
    view: ServerView,
) -> Tensor:
    """The final model after the repairs of all stages that make one."""
    for stage, state, label in zip(stages, states, labels, strict=True):
        if stage.finish:
            params = stage.finish(state, view)
            params = _finite(label, "repaired model", view.params, params)
            view = _at(view, params)
    return view.params


def _predictor(stages: Sequence[Defense], called: Sequence[str]) -> Predict | None:
    """How the final model predicts, where a stage says so. Raises BadInput where two do."""
    predicting = [index for index, stage in enumerate(stages) if stage.predict]
    if len(predicting) > 1:
        both = " and ".join(called[index] for index in predicting)
        raise BadInput(
            f"defense: {both} both say how the final model predicts; "
            "keep one of them, or turn that off in the other"
        )
    return stages[predicting[0]].predict if predicting else None


def _local_chain(defenses: Sequence[Defense], called: Sequence[str]) -> Local | None:
    """The local training of several stages as one; None where no stage changes it."""
    stages = [stage.local for stage in defenses if stage.local]
    if not stages:
        return None
    keeping = _keeping_stage(defenses, called)
    own = defenses[keeping].local if keeping is not None else None

    def prepare(view: ClientView) -> tuple[Any, ...]:
        return tuple(stage.prepare(view) if stage.prepare else None for stage in stages)

    def batch(
        memories: tuple[Any, ...],
        x: Tensor,
        y: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        for stage, memory in zip(stages, memories, strict=True):
            if stage.batch:
                x, y = stage.batch(memory, x, y, generator)
        return x, y

    def step(memories: tuple[Any, ...], taken: LocalStep) -> tuple[Tensor, tuple[Any, ...]]:
        after = list(memories)
        for index, stage in enumerate(stages):
            if stage.step:
                delta, after[index] = stage.step(memories[index], taken)
                taken = taken._replace(delta=delta)
        return taken.delta, tuple(after)

    def gradient(
        grad: Tensor,
        delta: Tensor,
        noise: Callable[[], Tensor],
    ) -> Tensor:
        for stage in stages:
            if stage.gradient:
                grad = stage.gradient(grad, delta, noise)
        return grad

    return Local(
        prepare,
        batch if any(stage.batch for stage in stages) else None,
        gradient if any(stage.gradient for stage in stages) else None,
        private=own.private if own else None,
        personal=own.personal if own else None,
        step=step if any(stage.step for stage in stages) else None,
        carry=_carry(own.carry, stages.index(own)) if own and own.carry else None,
    )


def _carry(carry: Carry[Any], index: int) -> Carry[tuple[Any, ...]]:
    """What a stage has clients remember, with the memories of all stages."""
    return Carry(
        carry.first,
        lambda memories: carry.begin(memories[index]),
        lambda memories, delta: carry.finish(memories[index], delta),
    )


def _keeping_stage(defenses: Sequence[Defense], called: Sequence[str]) -> int | None:
    """The stage that lets clients keep something of their own; None where nobody does. Raises
    BadInput where two do.
    """
    local = [stage.local or Local() for stage in defenses]
    keeping = [
        index for index, rules in enumerate(local) if rules.private or rules.personal or rules.carry
    ]
    if len(keeping) > 1:
        both = " and ".join(called[index] for index in keeping)
        raise BadInput(f"defense: {both} both say what clients have of their own; keep one of them")
    return keeping[0] if keeping else None
