"""``backstop status``: how far sweeps are, what failed and why, and what runs it again."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from backstop.platform import storage
from backstop.platform.commands.output import DONE, FAILED, open_console, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from backstop.platform.results.tracking.progress import Running
    from backstop.platform.results.tracking.store import Store
    from backstop.platform.results.tracking.sweep_states import Driver, Failure, SweepState

RUNS_NAMED = 10  # runs under way, and failed ones, that the text names for each sweep
WIDTH = 80  # columns of what is piped


def status(options: argparse.Namespace) -> int:
    """``backstop status``: the sweeps of a store. 1 where a run failed, or is missing and nobody
    works on it.
    """
    from backstop.platform.results.tracking.soundness import check_reachable
    from backstop.platform.results.tracking.store import locate_store
    from backstop.platform.results.tracking.sweep_states import Place, read_states

    folder = storage.locate(options.store)
    store = locate_store(folder)
    check_reachable(store, write=False)
    now = time.time()
    states = read_states(Place(store, folder, now), options.experiment)
    if options.json:
        print_json({"store": store.uri, "sweeps": [_document(state) for state in states]})
    else:
        _print_states(states, store, options.experiment, now)
    return DONE if all(state.sound for state in states) else FAILED


def _document(state: SweepState) -> Mapping[str, Any]:
    """A sweep as JSON."""
    return {
        **state._asdict(),
        "began": _iso(state.began),
        "ended": _iso(state.ended),
        "seconds_left": state.seconds_left,
        "running": [{**run._asdict(), "since": _iso(run.since)} for run in state.running],
        "failures": [failure._asdict() for failure in state.failures],
        "driver": {**state.driver._asdict(), "noted": _iso(state.driver.noted)},
        "command": _sweep_command(state),
    }


def _iso(seconds: float | None) -> str | None:
    """A time as ISO 8601 has it, in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _sweep_command(state: SweepState) -> str:
    """What goes on with a sweep; the command that was given, where it is known."""
    if state.driver.command:
        return f"cd {shlex.quote(state.driver.directory)} && {state.driver.command}"
    words = ["backstop", "sweep", state.space, "--experiment", state.experiment]
    return shlex.join(words)


def _print_states(
    states: Sequence[SweepState],
    store: Store,
    experiment: str | None,
    now: float,
) -> None:
    """A table where there are several sweeps, then more of each that is not done."""
    console = open_console(WIDTH)
    if not states:
        where = f"experiment {experiment!r} of {store.uri}" if experiment else store.uri
        print(f"no sweep in {where} yet")
    if len(states) > 1:
        console.print(_overview(states))
    for state in states:
        if len(states) > 1 and state.state == "done":
            continue
        if len(states) > 1:
            print()
        for part in _details(state, now):
            console.print(part, highlight=False, soft_wrap=isinstance(part, str), markup=False)


def _overview(states: Sequence[SweepState]) -> Table:
    """All sweeps, one a line."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("sweep", overflow="fold")
    table.add_column("state", no_wrap=True)
    for heading in ("done", "running", "failed", "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for state in states:
        table.add_row(
            _name(state),
            state.state,
            f"{state.done}/{state.planned}",
            str(state.running_count),
            str(len(state.failures)),
            _time_left(state),
        )
    return table


def _name(state: SweepState) -> str:
    """A sweep by its space, and its experiment where that is called otherwise."""
    if state.space == state.experiment:
        return state.space
    return f"{state.space} in experiment {state.experiment}"


def _time_left(state: SweepState) -> str:
    from backstop.platform.results.tracking.pace import clock

    return "–" if state.seconds_left is None else clock(state.seconds_left)


def _details(state: SweepState, now: float) -> Iterator[str | Table]:
    """All that is known of a sweep."""
    yield f"{_name(state)}: {state.state}"
    yield f"  {_counts(state)}"
    yield f"  {_times(state, now)}"
    yield f"  {_driver_words(state.driver, now)}"
    if state.running:
        yield _running_table(state, now)
    for failure in state.failures[:RUNS_NAMED]:
        yield from _failure_lines(failure)
    if (more := len(state.failures) - RUNS_NAMED) > 0:
        yield f"  and {more} more that failed; --json names them all"
    if state.state not in ("running", "done"):
        yield f"  goes on with: {_sweep_command(state)}"


def _counts(state: SweepState) -> str:
    counts = [f"{state.done} of {state.planned} done"]
    counts += [f"{state.running_count} running"] * bool(state.running_count)
    counts += [f"{len(state.failures)} failed"] * bool(state.failures)
    counts += [f"{state.pruned} proposals pruned"] * bool(state.pruned)
    missing = "to come" if state.state in ("running", "unknown") else "missing"
    counts += [f"{state.left} {missing}"] * bool(state.left)
    return ", ".join(counts)


def _times(state: SweepState, now: float) -> str:
    """Since when, for how long, how fast, how long still."""
    from backstop.platform.results.tracking.pace import clock

    local = datetime.fromtimestamp(state.began).astimezone()
    lasted = (state.ended or now) - state.began
    told = [f"began {local:%Y-%m-%d %H:%M}"]
    if state.ended is not None or state.state == "running":
        told.append(f"{clock(max(0.0, lasted))} {'in all' if state.ended else 'elapsed'}")
    if state.seconds_per_run is not None:
        told.append(f"a run every {state.seconds_per_run:.1f} s")
    if state.seconds_left is not None:
        told.append(f"about {clock(state.seconds_left)} left")
    return ", ".join(told)


def _driver_words(driver: Driver, now: float) -> str:
    """Whether the driver is alive, where it is, and when it was last heard of."""
    from backstop.platform.results.tracking.pace import clock

    words = {True: "driver alive", False: "driver ended", None: "driver not seen from here"}
    told = words[driver.alive]
    if driver.host:
        told += f", {driver.host}, process {driver.process}"
    if driver.noted is not None and driver.alive is not False:
        told += f", last note {clock(max(0.0, now - driver.noted))} ago"
    return told


def _running_table(state: SweepState, now: float) -> Table:
    """The runs under way."""
    from rich.table import Table

    from backstop.platform.results.tracking.pace import clock

    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("running now", overflow="fold")
    for heading in ("round", "for"):
        table.add_column(heading, justify="right", no_wrap=True)
    named = state.running[:RUNS_NAMED]
    for run in named:
        table.add_row(run.words, _round(run), clock(max(0.0, now - run.since)))
    if (more := state.running_count - len(named)) > 0:
        table.add_row(f"and {more} more", "", "")
    return table


def _round(run: Running) -> str:
    if run.round is None or run.rounds is None:
        return "–"
    return f"{run.round}/{run.rounds}"


def _failure_lines(failure: Failure) -> Iterator[str]:
    yield f"  failed {failure.id[:12]} {failure.words}"
    yield f"    why    {failure.reason}"
    yield f"    log    {failure.log or 'none was kept'}"
    if failure.command:
        yield f"    again  {failure.command}"
