"""What is checked before anything is trained: are stored and half-done runs of this data, this code
and these versions?
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from backstop.platform.params import BadInput
from backstop.platform.results.figures.wording import plural
from backstop.platform.results.tracking.runs import Run
from backstop.platform.rounds import origin
from backstop.platform.rounds.checkpoint import Checkpoint, Saved, saved_ids
from backstop.platform.rounds.origin import Made, Origin
from backstop.platform.specs.spec import Spec, spec_from_json
from backstop.platform.storage import Location
from backstop.platform.training.device import choose_device, fingerprint


def read_checkpoints(specs: Iterable[Spec], folder: Location) -> list[tuple[Spec, Saved]]:
    """The specs that a checkpoint holds something of, and what it holds."""
    there = saved_ids(folder)
    read = [(spec, Checkpoint(folder, spec.id).read()) for spec in specs if spec.id in there]
    return [(spec, saved) for spec, saved in read if saved is not None]


def runs_made(runs: Iterable[Run]) -> list[Made]:
    """Stored runs with their origins, without those whose plug-ins are gone."""
    made = []
    for run in runs:
        try:
            made.append(Made(spec_from_json(run.spec), run.origin))
        except BadInput:
            continue
    return made


def code_warning(made: Sequence[Made]) -> str:
    """A line where a plug-in's code is not what runs of its VERSION were made with, else empty."""
    changed = origin.changed_plugins(made)
    if not changed:
        return ""
    return (
        f"warning: the code of {', '.join(changed)} has changed since "
        f"{plural(max(changed.values()), 'stored run')} with the same VERSION; "
        "raise VERSION if its numbers change, then the runs are made anew"
    )


def check_data(
    of_stored: str,
    of_started: str,
    *,
    name: str,
    checkpoints: Location,
) -> None:
    """Refuse runs that have read other data than are there now: how they differ, or empty.

    Stored runs are in the experiment ``name``, those that are started in ``checkpoints``.
    """
    if of_stored:
        raise BadInput(
            f"experiment {name!r} holds runs that have read other data, {of_stored}; "
            "put the old data back, or give the new ones their own: --experiment NAME"
        )
    if of_started:
        raise BadInput(
            f"runs that are not finished have read other data, {of_started}; put the old data "
            f"back, or remove their files from {checkpoints} to begin them anew"
        )


def check_fingerprints(
    finished: Iterable[Run],
    device: str,
    name: str,
) -> None:
    """Check that the experiment's runs were made with the versions and kind of device of here.

    Raises BadInput where one was not.
    """
    here = fingerprint(choose_device(device))
    others = sorted({run.fingerprint for run in finished} - {here})
    if others:
        raise BadInput(
            f"experiment {name!r} holds runs of {'; '.join(others)}; this is {here}, whose figures "
            "are not comparable digit by digit; choose another --experiment, or --mix-fingerprints"
        )


def say_restarts(
    saved: Iterable[tuple[Spec, Saved]],
    device: str,
    say: Callable[[str], None],
) -> None:
    """A line for each half-done run that begins anew, because it is of another origin."""
    here = fingerprint(choose_device(device))
    for spec, checkpoint in saved:
        if checkpoint.done:
            continue
        now = Origin(here, checkpoint.origin.data, origin.code(spec))
        if difference := checkpoint.origin.difference(now):
            say(f"run {spec.id[:12]} begins anew: its first rounds were made with {difference}")
