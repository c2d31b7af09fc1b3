"""A few rounds of some runs of a plan, to tell what all of them take. Nothing of it is stored.

Training takes what the setting and the attack make of it, aggregation what the setting and the
defense do; so a run is measured for each attack and for each defense of a setting, not for every
pair of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from importlib import import_module
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from backstop.platform import loose
from backstop.platform.contract import BrokenStage
from backstop.platform.experiment import Experiment
from backstop.platform.loose import LooseFile
from backstop.platform.rounds import costs
from backstop.platform.specs.part import chain_text
from backstop.platform.specs.spec import Spec, spec_to_json
from backstop.platform.sweeps.other_work import OtherWork, between, read_clocks
from backstop.platform.training import local_sgd
from backstop.platform.workers.sharing import Load

SECONDS = 60.0  # of a calibration: the rounds that are under way then are the last
MOST_ROUNDS = 8  # of one run; the first is left out where there are more
OF_A_RUN = ("seed", "rounds", "eval_every", "attack", "defense", "dormant", "start", "warmup")
PREPARED = "backstop.platform.sweeps.prepared"  # what a trial's process imports
CONTEXT_MIB = 500.0  # of a GPU, besides its tensors: PyTorch's kernels


class RunKind(NamedTuple):
    """What the cost of a run hangs on: runs of one kind take as long round by round."""

    setting: str
    attack: str
    defense: str


class Measured(NamedTuple):
    """What a few rounds of a run took on one thread."""

    kind: RunKind
    setup_s: float
    train_s: float  # a round
    aggregate_s: float  # a round, with what is checked and told of it
    evaluate_s: float  # an evaluation
    rounds: int  # that were measured
    points: int  # figures of an evaluation
    model_mib: float
    load: Load
    beside: OtherWork = OtherWork()  # while the rounds were measured


def run_kind(spec: Spec) -> RunKind:
    """The kind of a spec's run."""
    fields = {name: value for name, value in spec_to_json(spec).items() if name not in OF_A_RUN}
    attack = chain_text(spec.attack, "attack") + " (dormant)" * spec.dormant
    setting = json.dumps(fields, sort_keys=True)
    return RunKind(setting, attack, chain_text(spec.defense, "defense"))


def representatives(specs: Iterable[Spec]) -> list[Spec]:
    """Specs with every attack and every defense of every setting among them, those of different
    settings in turns: what time is too short for is missing in all of them.
    """
    listed = list(specs)
    seen: set[tuple[str, str, str]] = set()
    of_settings: dict[str, list[Spec]] = {}
    for least in (2, 1):  # first those that bring both a new attack and a new defense
        for spec in listed:
            of = run_kind(spec)
            new = {(of.setting, "attack", of.attack), (of.setting, "defense", of.defense)} - seen
            if len(new) >= least:
                seen |= new
                of_settings.setdefault(of.setting, []).append(spec)
    in_turns = zip_longest(*of_settings.values())
    return [spec for turn in in_turns for spec in turn if spec is not None]


def calibrate(
    specs: Sequence[Spec],
    folder: Path,
    device: str,
    seconds: float = SECONDS,
) -> list[Measured]:
    """Measure runs of the specs in a process of its own, as a trial has one; nothing where it is
    ended for the memory it takes.

    Raises BadInput where a run cannot be set up.
    """
    chosen = representatives(specs)
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            return process.submit(measure, chosen, folder, device, seconds, loose.sent()).result()
    except BrokenProcessPool:
        return []


def measure(
    specs: Sequence[Spec],
    folder: Path,
    device: str,
    seconds: float,
    files: Sequence[LooseFile] = (),
) -> list[Measured]:
    """Measure the specs in this process, as many as the seconds allow and at least one that does
    not break.
    """
    loose.receive(files)
    import_module(PREPARED)  # it holds the memory of a trial's process then
    torch.set_num_threads(1)
    deadline = time.monotonic() + seconds
    measured: list[Measured] = []
    for index, spec in enumerate(specs):
        now = time.monotonic()
        if measured and now >= deadline:
            break
        until = now + (deadline - now) / (len(specs) - index)
        with suppress(BrokenStage):  # its trial will say so
            measured.append(_measured(spec, folder, device, until))
    return measured


def _measured(
    spec: Spec,
    folder: Path,
    device: str,
    until: float,
) -> Measured:
    began = time.monotonic()
    experiment = Experiment(spec.replace(warmup=0, eval_every=1), folder, device)
    setup_s = time.monotonic() - began
    rounds: list[Mapping[str, float]] = []
    looks = [read_clocks()]
    points, peak = 0, 0.0
    while experiment.rounds_left and len(rounds) < MOST_ROUNDS:
        record = experiment.round()
        looks.append(read_clocks())
        peak = max(peak, costs.peak(torch.device("cpu")) / costs.MIB)
        if record is not None:
            rounds.append(record.costs)
            points = max(points, len(record.metrics) + len(record.costs))
        if time.monotonic() >= until:
            break
    steady = rounds[1:] or rounds
    first = looks[1] if len(rounds) > 1 else looks[0]
    on_gpu = experiment.built.device.type == "cuda"
    return Measured(
        run_kind(spec),
        setup_s,
        train_s=_seconds(steady, "train"),
        aggregate_s=_seconds(steady, "check", "aggregate", "validate", "telemetry"),
        evaluate_s=_seconds(steady, "evaluate"),
        rounds=len(rounds),
        points=points,
        model_mib=_bytes(experiment) / costs.MIB,
        load=_load(experiment, _seconds(steady, "train"), peak),
        beside=between(first, looks[-1], on_gpu=on_gpu),
    )


def _seconds(rounds: Sequence[Mapping[str, float]], *phases: str) -> float:
    """What the phases take of a round, in the median."""
    each = [sum(spent.get(f"time/{phase}_s", 0.0) for phase in phases) for spent in rounds]
    return median(each)


def _bytes(experiment: Experiment) -> int:
    state = experiment.state
    return int(state.params.nbytes + state.buffers.nbytes)


def _load(
    experiment: Experiment,
    train_s: float,
    peak: float,
) -> Load:
    built = experiment.built
    cohort = built.asked(0).tolist()
    blocks = local_sgd.blocks(built, 0, cohort, built.attacked(0))
    gpu_mib = 0.0
    if built.device.type == "cuda":
        gpu_mib = torch.cuda.max_memory_reserved(built.device) / costs.MIB + CONTEXT_MIB
    return Load(
        train_s=train_s,
        blocks=len(blocks),
        sent_mib=len(cohort) * _bytes(experiment) / costs.MIB,
        mib=peak,
        gpu_mib=gpu_mib,
    )


def worst_load(measured: Iterable[Measured]) -> Load | None:
    """What any trial may need: the most memory of all, and of the rounds the one that gains least
    from being spread.
    """
    loads = [item.load for item in measured]
    if not loads:
        return None
    shortest = min(loads, key=lambda load: load.train_s)
    return shortest._replace(
        mib=max(load.mib for load in loads),
        gpu_mib=max(load.gpu_mib for load in loads),
    )
