"""``backstop sweep``: a search space, then its leaderboard."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backstop.platform.commands.board import write_board
from backstop.platform.commands.output import (
    DONE,
    FAILED,
    open_console,
    parse_actors,
    print_json,
    say,
    say_interrupted,
    usable_store,
)
from backstop.platform.params import BadInput


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        listed = [int(word) for word in text.split(",")]
    except ValueError:
        raise BadInput(
            f"--seeds {text!r} is not allowed; a number of seeds, or seeds joined by commas such as 0,1,2"
        ) from None
    if min(listed) < 0 or listed == [0]:
        raise BadInput(
            f"--seeds {text!r} is not allowed; a number of seeds from 1 on, or seeds from 0 on joined by commas"
        )
    return listed if len(listed) > 1 or text.endswith(",") else list(range(listed[0]))


def _changes(pairs: Sequence[str]) -> dict[str, Any]:
    from backstop.platform.specs.part import parse_value

    for pair in pairs:
        if "=" not in pair:
            raise BadInput(f"--set {pair!r} is not of the form key=value; example: rounds=5")
    return {
        key.strip(): parse_value(new.strip())
        for key, _, new in (pair.partition("=") for pair in pairs)
    }


def sweep(options: argparse.Namespace) -> int:
    """``backstop sweep``: everything of a search space that is not finished yet, then the
    leaderboard.
    """
    import dataclasses

    from backstop.platform.results.store import check_name, is_new
    from backstop.platform.specs.spec import Search
    from backstop.platform.sweeps.plan import (
        Fixed,
        Source,
        distinct,
        load_space,
        run_words,
        warm_first,
        with_overrides,
        with_twins,
    )
    from backstop.platform.training import loading
    from backstop.platform.training.device import choose_device
    from backstop.platform.workers import rays

    parse_actors(options.client_actors)
    device = choose_device(options.device).type
    changes, seeds = _changes(options.set), _seeds(options.seeds)
    found = with_overrides(
        load_space(options.space), changes, seeds, lambda line: say(f"backstop: {line}")
    )
    title = Path(options.space).stem
    name = options.experiment or title
    if options.trials is not None and options.trials < 1:
        raise BadInput(f"--trials {options.trials} is not allowed; a number of proposals from 1 on")
    if options.trials is not None and not isinstance(found, Search):
        raise BadInput(f"--trials is for a search; {options.space} is a list of {len(found)} specs")
    if isinstance(found, Search):
        from backstop.platform.sweeps.search import Proposals

        if options.trials is not None:
            found = dataclasses.replace(found, trials=options.trials)
        source: Source = Proposals(found)
        planned = distinct(found.base.replace(seed=seed, defense=()) for seed in found.seeds)
    else:
        planned = warm_first(with_twins(distinct(found)))
        source = Fixed(planned)
    if options.dry_run:
        return _dry_run(options, found, planned)
    check_name(name)
    if is_new(usable_store(options)):
        rays.check(options.ray_address)  # before a store is made
    folder = loading.data_folder(options.data_dir)
    queue = _conduct(options, source, planned, title, name, folder, device)
    if isinstance(source, Fixed):
        try:
            write_board(options, name, {spec.id: run_words(spec) for spec in planned})
        except BadInput as error:
            if not queue.unstored:
                raise
            say(f"backstop: no leaderboard now: {error}")
    else:
        _print_trials(options, source)
    complaints = _complaints(queue, Path(options.store) / "checkpoints")
    for line in complaints:
        say(f"backstop: {line}")
    return FAILED if complaints else DONE


def _complaints(queue: Any, checkpoints: Path) -> list[str]:
    """Which runs of a sweep failed or are not stored, and why: a line for each reason."""
    from backstop.platform.results.wording import plural

    kinds: dict[tuple[str, str, str], list[str]] = {}
    for spec_id, reason in queue.failures.items():
        kinds.setdefault(("failed", reason, "the same command tries again"), []).append(spec_id)
    for spec_id, item in queue.unstored.items():
        kept = f"kept in {checkpoints}; the same command sends what waits, without training again"
        lost = f"not kept in {checkpoints} either; the same command trains again"
        kinds.setdefault(
            ("trained but not stored", item.reason, kept if item.kept else lost), []
        ).append(spec_id)
    lines = []
    for (what, reason, remedy), ids in kinds.items():
        which = _listed([queue.specs[spec_id] for spec_id in ids])
        lines.append(f"{plural(len(ids), 'run')} {what}: {reason} ({which}); {remedy}")
    return [*lines, *queue.findings]


def _listed(specs: Sequence[Any], most: int = 5) -> str:
    """Runs for people, the first few of many."""
    from backstop.platform.sweeps.plan import (
        run_words,
    )

    named = [f"{spec.id[:12]} {run_words(spec)}" for spec in specs[:most]]
    return "; ".join([*named, *([f"and {len(specs) - most} more"] if len(specs) > most else [])])


def _conduct(
    options: argparse.Namespace,
    source: Any,
    planned: Sequence[Any],
    title: str,
    name: str,
    folder: Path,
    device: str,
) -> Any:
    """Open the store, rehearse, start Ray, run what is left; the queue, which knows how everything
    ended.
    """
    from concurrent.futures import ThreadPoolExecutor
    from contextlib import ExitStack

    from backstop.platform.commands.live import Watch
    from backstop.platform.results import drivers
    from backstop.platform.results.runs import read_runs
    from backstop.platform.results.store import is_new, locate_store, open_experiment
    from backstop.platform.results.sweeps import (
        close_parent,
        drivers_home,
        mark_interrupted,
        open_parent,
        stop_runs,
        write_plan,
    )
    from backstop.platform.results.wording import plural
    from backstop.platform.sweeps import waiting
    from backstop.platform.sweeps.plan import (
        Fixed,
        Queue,
        preflight,
        run_words,
    )
    from backstop.platform.workers import rays
    from backstop.platform.workers.cluster import local_ray, spread

    actors, store = parse_actors(options.client_actors), locate_store(Path(options.store))
    checkpoints = Path(options.store).resolve() / "checkpoints"

    def opened() -> tuple[str, list[Any]]:
        experiment = open_experiment(store, name)
        say_interrupted(mark_interrupted(store, Path(options.store), name))
        return experiment, read_runs(store, name)

    place = drivers_home(store, Path(options.store))

    def release() -> None:
        """Once Ray has ended: nobody works on this sweep's runs any more."""
        if (
            opening.done()
            and not opening.exception()
            and stop_runs(store, opening.result()[0], driver)
        ):
            drivers.forget(place, driver)

    with ExitStack() as stack:
        driver = stack.enter_context(drivers.at_work(place))
        # A new store takes MLflow seconds to make, Ray takes seconds to start: side by side. An old
        # store may hold all there is to run.
        opening = stack.enter_context(ThreadPoolExecutor(1)).submit(opened)
        stack.callback(release)
        fresh = is_new(store)
        if fresh:
            preflight(planned, folder, device)
            say(f"{title}: starting Ray and a new store in {options.store} …")
            ray = stack.enter_context(local_ray(options.ray_address))
        experiment, finished = opening.result()
        queue = Queue(source, {run.id: run.metrics for run in finished})
        left = queue.fill()
        _check_origin(options, queue, finished, planned, name, folder, device)
        parent = open_parent(store, experiment, title, driver=driver)
        if isinstance(source, Fixed):
            write_plan(store, parent, {spec.id: run_words(spec) for spec in planned})
        address = waiting.Address(store, experiment, parent, title, checkpoints, driver)
        if sent := waiting.send(queue.waiting, queue, address):
            say(
                f"{title}: stored {plural(len(sent), 'run')} that waited in {checkpoints}, without training again"
            )
            queue.waiting = [spec for spec in queue.waiting if spec.id not in sent]
            queue.skipped += len(sent)
            left = queue.fill()
        if not left:
            close_parent(store, parent, "FINISHED")
            say(f"{title}: all {queue.expected} runs are finished already in experiment {name!r}")
            return queue
        if not fresh:
            rays.check(options.ray_address)
            preflight(queue.waiting, folder, device)
            say(
                f"{title}: starting Ray; {queue.skipped} of {queue.expected} runs are finished already …"
            )
            ray = stack.enter_context(local_ray(options.ray_address))
        from backstop.platform.sweeps.trials import Progress, Task
        from backstop.platform.sweeps.trials import sweep as run_all

        have = ray.cluster_resources()
        count, share = spread(
            actors, len(queue.waiting), have.get("CPU", 1), have.get("GPU", 0), device
        )
        task = Task(
            store,
            experiment,
            parent,
            title,
            checkpoints,
            folder.resolve(),
            device,
            count,
            share,
            driver,
        )
        with Watch(title, queue) as watch:
            run_all(
                queue,
                task,
                Progress(watch.started, watch.result, watch.ended),
                have,
                options.max_concurrent,
            )
        if any(item.kept for item in queue.unstored.values()):
            reason = next(iter(queue.unstored.values())).reason
            limit = waiting.patience(store)
            say(
                f"{title}: {plural(len(queue.unstored), 'run')} not stored yet ({reason}); trying for up to {limit:.0f} s …"
            )
            if sent := waiting.insist(queue, address):
                say(f"{title}: {plural(len(sent), 'run')} stored now")
        close_parent(store, parent, "FAILED" if queue.unstored or queue.failures else "FINISHED")
    return queue


def _check_origin(
    options: argparse.Namespace,
    queue: Any,
    finished: Sequence[Any],
    planned: Sequence[Any],
    name: str,
    folder: Path,
    device: str,
) -> None:
    """Before anything is trained: the data of stored and of half-done runs are those of today, and
    the
    versions those of the store. BadInput where not; a plug-in's changed code is warned of.
    """
    from backstop.platform.rounds import origin
    from backstop.platform.rounds.checkpoint import Checkpoint
    from backstop.platform.training.device import choose_device, fingerprint

    checkpoints = Path(options.store) / "checkpoints"
    datasets = {str(spec.dataset) for spec in planned}
    stored = [item for item in _made_of(finished) if str(item.spec.dataset) in datasets]
    saved = [(spec, Checkpoint(checkpoints, spec.id).read()) for spec in queue.waiting]
    begun = [origin.Made(spec, found.origin) for spec, found in saved if found is not None]
    try:
        changed = origin.other_data_of(stored, folder)
        torn = origin.other_data_of(begun, folder)
    except BadInput as error:
        if queue.waiting:
            raise
        say(f"backstop: whether the data are still those of the runs is not known: {error}")
        return
    if changed:
        raise BadInput(
            f"experiment {name!r} holds runs that have read other data, {changed}; "
            "put the old data back, or give the new ones their own: --experiment NAME"
        )
    if torn:
        raise BadInput(
            f"runs that are not finished have read other data, {torn}; "
            f"put the old data back, or remove their files from {checkpoints} to begin them anew"
        )
    warn_of_code([*stored, *begun])
    if not queue.waiting or options.ray_address:  # a cluster's devices are not known here
        return
    here = fingerprint(choose_device(device))
    others = sorted({run.fingerprint for run in finished} - {here})
    if others and not options.mix_fingerprints:
        raise BadInput(
            f"experiment {name!r} holds runs of {'; '.join(others)}; this is {here}, whose figures are "
            "not comparable digit by digit; choose another --experiment, or --mix-fingerprints"
        )
    for spec, found in saved:
        if found is None or found.done:
            continue
        other = found.origin.difference(origin.Origin(here, found.origin.data, origin.code(spec)))
        if other:
            say(f"run {spec.id[:12]} begins anew: its first rounds were made with {other}")


def _made_of(runs: Sequence[Any]) -> list[Any]:
    """Stored runs as the checks of their origin need them, without those whose plug-ins are gone."""
    from backstop.platform.rounds import origin
    from backstop.platform.specs.spec import spec_from_json

    found = []
    for run in runs:
        try:
            found.append(origin.Made(spec_from_json(run.spec), run.origin))
        except BadInput:
            continue
    return found


def warn_of_code(made: Sequence[Any]) -> None:
    """A line where a plug-in's code is not what stored runs of its VERSION were made with."""
    from backstop.platform.results.wording import plural
    from backstop.platform.rounds import origin

    changed = origin.changed_plugins(made)
    if changed:
        say(
            f"backstop: warning: the code of {', '.join(changed)} has changed since "
            f"{plural(max(changed.values()), 'stored run')} with the same VERSION; "
            "raise VERSION if its numbers change, then the runs are made anew"
        )


def _dry_run(options: argparse.Namespace, found: Any, planned: Sequence[Any]) -> int:
    """Print what would run."""
    from backstop.platform.specs.spec import spec_title, spec_to_json

    listed = [{"id": spec.id, "spec": spec_to_json(spec)} for spec in planned]
    if options.json:
        print_json(
            {
                "space": options.space,
                "specs": listed,
                "search": None if isinstance(found, list) else list(found.free),
            }
        )
        return DONE
    for spec in planned:
        print(f"{spec.id[:12]}  seed {spec.seed}  {spec_title(spec)}")
    more = (
        ""
        if isinstance(found, list)
        else f", then {found.trials} proposals for {', '.join(found.free)}"
    )
    say(f"{options.space}: {len(planned)} runs{more}; nothing was started")
    return DONE


def _print_trials(options: argparse.Namespace, source: Any) -> None:
    """The proposals of a search in order, and the best of them."""
    from rich.table import Table

    best = source.best()
    if options.json:
        trials = [
            {"number": number, "values": values, "score": score}
            for number, (values, score) in enumerate(source.trials)
        ]
        print_json(
            {
                "space": options.space,
                "objective": source.search.objective,
                "trials": trials,
                "best": best and {"values": best[0], "score": best[1]},
            }
        )
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("trial", *source.search.free, source.search.objective):
        table.add_column(name, justify="right")
    for number, (values, score) in enumerate(source.trials):
        table.add_row(
            str(number),
            *(
                f"{values[key]:.4g}" if isinstance(values[key], float) else str(values[key])
                for key in source.search.free
            ),
            f"{score:.4f}",
            style="green" if best and values == best[0] else "",
        )
    open_console().print(table)
