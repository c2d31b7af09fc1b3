"""``backstop sweep``: a search space, then its leaderboard."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backstop.platform import collector, storage, vault
from backstop.platform.commands.again import begin_again
from backstop.platform.commands.board import write_board
from backstop.platform.commands.forecast import print_forecast
from backstop.platform.commands.output import (
    DONE,
    FAILED,
    NO_MODELS,
    parse_actors,
    print_json,
    say,
    usable_store,
)
from backstop.platform.params import BadInput

if TYPE_CHECKING:
    from backstop.platform.results.leaderboard.boards import Ranked
    from backstop.platform.sweeps.conduct import Site
    from backstop.platform.sweeps.plan import SweepPlan
    from backstop.platform.sweeps.queues import Queue
    from backstop.platform.sweeps.search import Proposals
    from backstop.platform.sweeps.waiting import Patience


def parse_seeds(text: str | None) -> list[int] | None:
    """The value of ``--seeds``: how many, or which; None where it was not given."""
    if text is None:
        return None
    refused = f"--seeds {text!r} is not allowed"
    try:
        listed = list(map(int, text.split(",")))
    except ValueError:
        raise BadInput(
            f"{refused}; a number of seeds, or seeds joined by commas such as 0,1,2"
        ) from None
    if min(listed) < 0 or listed == [0]:
        raise BadInput(f"{refused}; at least 1 seed, or seeds of at least 0 joined by commas")
    if len(listed) > 1 or text.endswith(","):
        return listed
    return list(range(listed[0]))


def _parse_changes(pairs: Sequence[str]) -> dict[str, Any]:
    from backstop.platform.specs.part import parse_value

    changes: dict[str, Any] = {}
    given: dict[str, str] = {}  # key → the whole pair
    for pair in pairs:
        key, equals, new = (word.strip() for word in pair.partition("="))
        if not equals:
            raise BadInput(f"--set {pair!r} is not of the form key=value; example: rounds=5")
        if key in given:
            raise BadInput(f"--set {given[key]!r} and --set {pair!r} both set {key}; give one")
        given[key] = pair
        changes[key] = parse_value(new)
    return changes


def sweep(options: argparse.Namespace) -> int:
    """``backstop sweep``: everything of a search space that is not finished yet, then the
    leaderboard.
    """
    began = time.monotonic()
    actors = parse_actors(options.client_actors)
    vault.keep_with(storage.locate(options.store))
    plan = _plan(options)
    if options.dry_run:
        return _print_plan(options, plan)
    with collector.resting():
        from backstop.platform.commands.live import Watch
        from backstop.platform.results.tracking.journal import settling
        from backstop.platform.sweeps.beside import Beside
        from backstop.platform.sweeps.conduct import conduct, shortfalls
        from backstop.platform.sweeps.ray_tune import Precautions, RayTune
        from backstop.platform.sweeps.waiting import Patience
        from backstop.platform.training.device import choose_device
        from backstop.platform.training.precision import emulation_note
        from backstop.platform.workers.limits import Limits

    device = choose_device(options.device)
    if options.plan:
        return print_forecast(options, plan, device.type)
    if note := emulation_note((spec.precision for spec in plan.specs), device):
        say(f"backstop: {note}")
    site = _site(options, plan, device.type)
    patience = Patience(site.store, say)
    backend = RayTune(
        options.ray_address,
        actors,
        options.max_concurrent,
        plan.source.expected(),
        say,
        options.mix_fingerprints,
        Precautions(
            Limits(options.trial_minutes, options.trial_memory),
            storage.local_folder(storage.locate(options.store)),
            begin_again if options.alone else None,
        ),
    )
    # Ray ends while the leaderboard is written, and with it the last who writes to the store
    with settling(site.store), Beside(backend.start) as starting:
        queue = conduct(
            plan,
            site,
            backend,
            starting=starting,
            watch=lambda queue: Watch(plan.title, queue),
            say=say,
            patience=patience,
        )
        lines = _show_results(options, site, plan, queue, patience)
    if beside := _beside_guess(site.experiment, plan, queue, time.monotonic() - began):
        _remark(beside)
    lines = [*shortfalls(queue, site), *lines]
    for line in lines:
        _remark(line)
    return FAILED if lines else DONE


def _show_results(
    options: argparse.Namespace,
    site: Site,
    plan: SweepPlan,
    queue: Queue,
    patience: Patience,
) -> list[str]:
    """Show what the searches have chosen, and the leaderboard; what is returned says why there is
    none.
    """
    if plan.searches:
        _print_searches(options, plan.searches)
    if _ends_with_board(options, plan.searches):
        return _write_board(options, site, plan, queue, patience)
    _say_models(options, plan, queue, None, patience)
    return []


def _say_models(
    options: argparse.Namespace,
    plan: SweepPlan,
    queue: Queue,
    board: Ranked | None,
    patience: Patience,
) -> None:
    """Remove the final models that are not to be kept, and say which are."""
    if options.keep_models == "none":
        _remark(NO_MODELS)
    if options.keep_models != "best":
        return
    if board is None:
        _remark("there is no leaderboard to choose by, so all final models are kept")
        return
    from backstop.platform.results.leaderboard.best import best_runs
    from backstop.platform.results.tracking.models import drop_models

    ours = queue.specs.keys() | {spec.id for spec in plan.specs}
    best = best_runs(board.document)
    if not best.ids:
        _remark("no defense is ranked, so all final models are kept")
        return
    others = [run for run in board.runs if run.id in ours - best.ids]
    dropped = patience.insist(lambda: drop_models(patience.store, others))
    kept = f"the final models of {best.defense} are kept"
    _remark(f"{kept}, those of {dropped} other runs were removed")


def _beside_guess(
    name: str,
    plan: SweepPlan,
    queue: Queue,
    seconds: float,
) -> str:
    """What the sweep has taken beside what ``--plan`` has guessed; empty without a guess."""
    from backstop.platform.sweeps import guesses

    return guesses.outcome(
        guesses.find_guess(name, plan.specs), queue.expected - queue.skipped, seconds
    )


def _remark(line: str) -> None:
    say(f"backstop: {line}")


def _plan(options: argparse.Namespace) -> SweepPlan:
    """The search space as the options change it."""
    from backstop.platform.sweeps.plan import make_plan

    return make_plan(
        options.space,
        changes=_parse_changes(options.set),
        seeds=parse_seeds(options.seeds),
        trials=options.trials,
        say=_remark,
    )


def _site(
    options: argparse.Namespace,
    plan: SweepPlan,
    device: str,
) -> Site:
    """Where the sweep reads and writes, checked."""
    from backstop.platform.results.tracking.experiments import check_name
    from backstop.platform.sweeps.conduct import Site
    from backstop.platform.training.loading import data_folder

    name = plan.title if options.experiment is None else options.experiment
    check_name(name)
    return Site(
        store=usable_store(options),
        folder=storage.locate(options.store),
        experiment=name,
        data=data_folder(options.data_dir),
        device=device,
        mix_fingerprints=options.mix_fingerprints,
        keeps_models=options.keep_models != "none",
        command=shlex.join(["backstop", *options.arguments]),
    )


def _ends_with_board(options: argparse.Namespace, searches: Sequence[Proposals]) -> bool:
    """Whether there is something to rank: of searches their winners on fresh seeds, unless one JSON
    document says all of them.
    """
    confirmed = [item for proposals in searches for item in proposals.confirmed if item.specs]
    return not searches or bool(confirmed and not options.json)


def _write_board(
    options: argparse.Namespace,
    site: Site,
    plan: SweepPlan,
    queue: Queue,
    patience: Patience,
) -> list[str]:
    """Write the leaderboard; where runs are lacking or the store is away there may be none now, and
    what is returned says so.
    """
    from backstop.platform.results.tracking.store import Away
    from backstop.platform.sweeps.plan import run_words

    planned = {} if plan.searches else {spec.id: run_words(spec) for spec in plan.specs}
    try:
        board = write_board(options, site.experiment, planned, patience, queue.finished)
    except BadInput as error:
        if not (queue.unstored or queue.failures or isinstance(error, Away)):
            raise
        _say_models(options, plan, queue, None, patience)
        return [f"no leaderboard now: {error}; the same command writes it"]
    _say_models(options, plan, queue, board, patience)
    return []


def _print_plan(options: argparse.Namespace, plan: SweepPlan) -> int:
    """Print what would run."""
    from backstop.platform.specs.spec import spec_title

    if options.json:
        print_json(_plan_document(options.space, plan))
        return DONE
    if plan.searches:
        lines = [_search_line(proposals) for proposals in plan.searches]
    else:
        lines = [f"{spec.id[:12]}  seed {spec.seed}  {spec_title(spec)}" for spec in plan.specs]
    for line in lines:
        print(line)
    what = "about " * bool(plan.searches) + f"{plan.source.expected()} runs"
    say(f"{options.space}: {what}; nothing was started")
    return DONE


def _search_line(proposals: Proposals) -> str:
    """A search in a line: how many proposals, and of what."""
    search = proposals.search
    keys = ", ".join([*search.choices, *search.free]) or "nothing"
    named = f"{search.title}: " * bool(search.title)
    return f"{named}{search.trials} proposals of {keys}"


def _plan_document(space: str, plan: SweepPlan) -> Mapping[str, Any]:
    """The same as one JSON document."""
    from backstop.platform.specs.spec import spec_to_json

    listed = [] if plan.searches else plan.specs
    return {
        "space": space,
        "specs": [{"id": spec.id, "spec": spec_to_json(spec)} for spec in listed],
        "searches": [_search_plan(proposals) for proposals in plan.searches],
    }


def _search_plan(proposals: Proposals) -> Mapping[str, Any]:
    search = proposals.search
    return {
        "title": search.title,
        "trials": search.trials,
        "choices": {key: list(options) for key, options in search.choices.items()},
        "free": list(search.free),
    }


def _print_searches(options: argparse.Namespace, searches: Sequence[Proposals]) -> None:
    """What the searches have tried and chosen."""
    from backstop.platform.commands.searches import print_searches
    from backstop.platform.sweeps.reports import search_report

    if options.json:
        reports = [search_report(proposals) for proposals in searches]
        print_json({"space": options.space, "searches": reports})
    else:
        print_searches(searches)
