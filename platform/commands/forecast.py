"""``backstop sweep SPACE --plan``: what would go where, and what it would take."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backstop.platform import storage
from backstop.platform.commands.output import DONE, parse_actors, print_json, say

if TYPE_CHECKING:
    from backstop.platform.contract import Spec
    from backstop.platform.sweeps.calibration import Measured
    from backstop.platform.sweeps.plan import SweepPlan
    from backstop.platform.workers.sharing import Resources

WIDTH, MARGIN = 80, 10  # columns of a line, and of what it is about


def print_forecast(
    options: argparse.Namespace,
    plan: SweepPlan,
    device: str,
) -> int:
    """Measure some runs for a minute and print what all that are left would take."""
    from backstop.platform.sweeps.calibration import SECONDS
    from backstop.platform.training.loading import data_folder

    name = plan.title if options.experiment is None else options.experiment
    stored = _stored(options, name)
    left = [spec for spec in plan.specs if spec.id not in stored]
    say(f"{plan.title}: measuring some runs for up to {SECONDS:.0f} s …")
    where, have, measured = _look(options, left, data_folder(options.data_dir).resolve(), device)
    document = forecast(options, plan, left, where, have, measured, device)
    _keep(name, plan, document)
    if options.json:
        print_json(document)
    else:
        print("\n".join(forecast_lines(document)))
    say(f"{plan.title}: nothing was started, and nothing of this is stored")
    return DONE


def _stored(options: argparse.Namespace, name: str) -> set[str]:
    """The ids of the runs that are finished already."""
    from backstop.platform.results.tracking.runs import read_runs
    from backstop.platform.results.tracking.store import (
        is_new,
        locate_store,
        mlflow_client,
        refusing,
    )

    store = locate_store(storage.locate(options.store))
    if is_new(store):
        return set()
    with refusing(store):
        known = mlflow_client(store.uri).get_experiment_by_name(name)
    return {run.id for run in read_runs(store, name)} if known else set()


def _look(
    options: argparse.Namespace,
    left: Sequence[Spec],
    data: Path,
    device: str,
) -> tuple[list[str], Resources, list[Measured]]:
    """The nodes in words, what they have, and what some runs took on one of them."""
    from backstop.platform.sweeps import calibration
    from backstop.platform.workers.machine import machine_resources

    address = options.ray_address
    if not address or address == "local":
        have = machine_resources(device)
        measured = calibration.calibrate(left, data, device) if left else []
        return [f"this machine: {resource_words(have)}"], have, measured
    from backstop.platform.workers.cluster import measured_resources, node_words, on_a_node
    from backstop.platform.workers.connection import local_ray
    from backstop.platform.workers.machine import gpu_mib

    with local_ray(address):
        chosen = calibration.representatives(left)
        seconds = calibration.SECONDS
        measured = on_a_node(calibration.measure, device, chosen, data, device, seconds)
        return node_words(), measured_resources(gpu_mib(device)), measured


def forecast(
    options: argparse.Namespace,
    plan: SweepPlan,
    left: Sequence[Spec],
    where: Sequence[str],
    have: Resources,
    measured: Sequence[Measured],
    device: str,
) -> Mapping[str, Any]:
    """All that is known of a sweep beforehand, as a document."""
    from backstop.platform.sweeps.calibration import worst_load
    from backstop.platform.sweeps.other_work import together
    from backstop.platform.sweeps.outlook import RunRates, by_setting, outlook, scaled
    from backstop.platform.workers.sharing import held, share_processors, slots

    expected = plan.source.expected()
    runs = expected - (len(plan.specs) - len(left)) if not plan.searches else expected
    asked = options.max_concurrent or runs
    load = worst_load(measured)
    workers = share_processors(
        parse_actors(options.client_actors),
        min(runs, asked),
        have,
        device,
        load,
    )
    fitting = slots(workers, {"CPU": have.cpus, "GPU": have.gpus})
    at_once = min(fitting, held(workers, have, load) or fitting, asked, max(runs, 1))
    document: dict[str, Any] = {
        "space": options.space,
        "runs": expected,
        "stored": expected - runs,
        "left": runs,
        "nodes": list(where),
        "trials_at_once": at_once,
        "client_actors": workers.actors,
        "threads": workers.threads,
        "gpus_per_process": workers.share.gpus,
        "reason": workers.reason,
        "memory_holds": held(workers, have, load),
        "store_free_mib": _free_mib(storage.local_folder(storage.locate(options.store))),
    }
    if not measured or load is None:
        return document
    rates = RunRates(measured)
    guess = scaled(outlook(left, rates, workers, at_once), runs)
    beside = together(item.beside for item in measured)
    return document | {
        "measured_runs": len(measured),
        "measured_rounds": sum(item.rounds for item in measured),
        "guessed_runs": guess.guessed,
        "measured_beside": beside.words,
        "core_share": beside.own_share,
        "other_cores": beside.other_cores,
        "settings": [
            {"setting": words, "runs": count, "run_s": seconds}
            for words, (count, seconds) in by_setting(left, rates).items()
        ],
        "seconds": guess.seconds,
        "processor_hours": guess.processor_s / 3600,
        "longest_run_s": guess.longest_s,
        "trial_mib": load.mib * (1 + workers.actors),
        "trial_gpu_mib": load.gpu_mib,
        "memory_mib": at_once * load.mib * (1 + workers.actors),
        "store_mib": guess.store_mib,
    }


def _keep(
    name: str,
    plan: SweepPlan,
    document: Mapping[str, Any],
) -> None:
    """Keep the guess for the end of the sweep."""
    from backstop.platform.sweeps import guesses

    if "seconds" in document:
        guess = guesses.Guess(document["left"], document["seconds"], document["measured_beside"])
        guesses.keep_guess(name, plan.specs, guess)


def _free_mib(folder: Path) -> float:
    """Free disk where the store is, or will be."""
    there = folder.expanduser().resolve()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free / 2**20


def forecast_lines(document: Mapping[str, Any]) -> list[str]:
    """The document for people, at most 80 columns wide."""
    from backstop.platform.sweeps.guesses import duration

    lines = _entry(
        "runs",
        f"{document['runs']} in all, {document['stored']} stored already, {document['left']} left",
    )
    for node in document["nodes"]:
        lines += _entry("where", node)
    lines += _entry("at once", _at_once(document))
    lines += _entry("because", document["reason"])
    if "seconds" not in document:
        return lines
    for item in document["settings"]:
        run = duration(item["run_s"])
        lines += _entry("setting", f"{item['setting']}: {item['runs']} runs of about {run}")
    lines += _entry(
        "time",
        f"about {duration(document['seconds'])}; the longest run"
        f" {duration(document['longest_run_s'])}; {document['processor_hours']:.2g} processor"
        " hours",
    )
    lines += _entry("memory", _memory(document))
    lines += _entry(
        "store",
        f"grows by about {mib_words(document['store_mib'])} in the models and figures of the runs;"
        f" {mib_words(document['store_free_mib'])} are free",
    )
    lines += _entry("measured", _measured(document))
    if beside := document["measured_beside"]:
        lines += _entry(
            "busy",
            f"the machine did other work meanwhile: {beside}; the time may be far off, so plan"
            " again when it is idle",
        )
    return lines


def _entry(about: str, words: str) -> list[str]:
    return textwrap.wrap(
        words,
        WIDTH,
        initial_indent=f"{about:{MARGIN}}",
        subsequent_indent=" " * MARGIN,
        break_on_hyphens=False,
    )


def _at_once(document: Mapping[str, Any]) -> str:
    trials = document["trials_at_once"]
    who = f"{document['client_actors']} client actors"
    if not document["client_actors"]:
        threads = document["threads"]
        who = "one thread" if threads == 1 else f"{threads} threads"
    gpus = document["gpus_per_process"]
    each = f"each on {who}" if trials > 1 else f"on {who}"
    share = f", {gpus:.2g} of a GPU for each process" if gpus else ""
    limit = document["memory_holds"]
    held = f"; memory holds {limit}" if limit is not None and limit == trials else ""
    return f"{trials} trial{'s' * (trials > 1)}, {each}{share}{held}"


def _memory(document: Mapping[str, Any]) -> str:
    words = (
        f"{mib_words(document['trial_mib'])} a trial, {mib_words(document['memory_mib'])} in all"
    )
    if document["trial_gpu_mib"]:
        words += f"; {mib_words(document['trial_gpu_mib'])} of a GPU a trial"
    return words


def _measured(document: Mapping[str, Any]) -> str:
    words = f"{document['measured_rounds']} rounds of {document['measured_runs']} runs"
    if document["guessed_runs"]:
        words += (
            f"; the attack or defense of {document['guessed_runs']} runs was not reached and is"
            " taken for the mean of its setting"
        )
    return words


def mib_words(mib: float) -> str:
    """Memory for people.

    >>> mib_words(690.4), mib_words(2048.0), mib_words(0.31)
    ('690 MiB', '2.0 GiB', '0.31 MiB')
    """
    if mib >= 1024:
        return f"{mib / 1024:.1f} GiB"
    return f"{mib:.0f} MiB" if mib >= 10 else f"{mib:.2g} MiB"


def resource_words(have: Resources) -> str:
    """Processors and memory for people."""
    words = [f"{have.cpus:.0f} CPUs", f"{have.gpus:.0f} GPUs" if have.gpus else "no GPU in use"]
    if have.memory_mib is not None:
        words.append(f"{mib_words(have.memory_mib)} of memory")
    return ", ".join(words)
