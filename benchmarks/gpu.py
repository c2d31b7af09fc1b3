"""What a GPU computes and what it gains: the numbers of a CPU, whole cohorts at once, rules, trials
side by side, rounds of the paper's CIFAR-10 task.

    PYTHONPATH=src python benchmarks/gpu.py [--device auto|cpu|cuda] [--budget SECONDS]
        [--sections engines,rules,cohort,bandwidth,trials,paper] [--tiny] [--out FILE]

One command that needs torch and torchvision, no data set and no other package; numba, where it is
installed, runs the CPU's side of the rules. Prints a table for each section and writes all of it
as JSON, after each section anew. Each section has its share of the budget and what it leaves goes
to the next one; what does not fit is listed as not run, or as stopped. Exit code 1 where CPU and
GPU disagree or a measurement failed.

``--device cpu --tiny`` goes the same way in seconds, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from backstop.platform import plugins, robust, seeds
from backstop.platform.contract import Data, Dataset, Part, Samples, Spec, Updates
from backstop.platform.datasets import cifar10
from backstop.platform.examples import server_view
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.rounds import costs
from backstop.platform.specs.part import parse_part, to_chain
from backstop.platform.training import loading
from backstop.platform.training.device import choose_device, fingerprint
from backstop.platform.training.mean import weighted_mean
from backstop.search_spaces.paper_cifar10 import BASE

HERE = Path(__file__).resolve().parent
NOWHERE = Path("no data folder")  # where images are made up
BUDGET = 450.0  # seconds: what is left of eight minutes are imports and the end
GIB = 1 << 30
REPEATS = 5  # timed calls after the first one, where there is time
PATIENCE = 3.0  # times its even share of a section that one measurement may take
ANSWER = 120.0  # seconds in which a process of a trial starts or answers
# ‖GPU - CPU‖ / ‖CPU‖, float32 arithmetic on both: of a round's change of the model, and of an
# aggregate. Sums in another order give some 1e-7, and a rectifier that is then on the other side of
# its kink some 1e-3: measured between the two engines on one CPU, 2e-7 for the CNN and 4e-3 for
# ResNet-18.
ROUND_TOLERANCE, RULE_TOLERANCE = 2e-2, 1e-4
ROOT = 10  # samples that the server holds out
EDGE_CASES = (784, 192)  # published, for training and for testing

CPU = torch.device("cpu")
SGD = Part("sgd", {"lr": 0.01, "momentum": 0.9})
Figures = dict[str, Any]  # of one measurement, by column; JSON


class Load(NamedTuple):
    """A round's local training."""

    clients: int
    batch: int
    steps: int  # of each client


class Sizes(NamedTuple):
    """How much is measured."""

    engines: Load
    rules: tuple[int, int]  # (n, d)
    cohort: Load
    bandwidth: tuple[tuple[int, int], ...]
    crews: tuple[int, ...]  # trials side by side
    seconds: float  # that they train for
    paper: Spec
    models: tuple[str, ...] = ("cnn", "resnet18")  # of images
    side: int = 32  # pixels of images that are made up


FULL = Sizes(
    engines=Load(4, 8, 2),
    rules=(20, 62_006),
    cohort=Load(20, 64, 8),
    bandwidth=((20, 62_006), (20, 11_173_962), (100, 11_173_962)),  # the CNN, ResNet-18
    crews=(1, 2, 4, 8),
    seconds=5.0,
    paper=BASE.replace(warmup=0),  # a round of the warm-up is a round like others
)
TINY = Sizes(
    engines=Load(2, 2, 1),
    rules=(8, 500),
    cohort=Load(2, 2, 1),
    bandwidth=((8, 500),),
    crews=(1, 2),
    seconds=0.1,
    paper=BASE.replace(
        dataset=Part("cifar10", {"samples": 40}),
        model=Part("cnn"),
        warmup=0,
        clients=4,
        per_round=2,
        batch=4,
        root_size=4,
        eval_every=1,
    ),
    models=("cnn",),
    side=8,
)


class Bench(NamedTuple):
    """What all sections measure on."""

    device: torch.device
    sizes: Sizes
    folder: Path  # with the data sets, if there are any


class Job(NamedTuple):
    """One line of a table. ``measure`` is given the seconds that it should take."""

    label: dict[str, Any]
    measure: Callable[[float], Figures]


class Section(NamedTuple):
    """One table."""

    title: str
    share: float  # of the budget
    jobs: Callable[[Bench], list[Job]]


class OutOfTime(BaseException):
    """The time of a measurement is over; no handler of exceptions on the way may take it for one
    of its own.
    """


# --- clocks and memory


def seconds_of(device: torch.device, work: Callable[[], Any]) -> float:
    """Seconds of one call: on a GPU those between two events on its stream."""
    if device.type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        first.record()
        work()
        last.record()
        torch.cuda.synchronize(device)
        return float(first.elapsed_time(last)) / 1e3
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def timed(
    device: torch.device,
    work: Callable[[], Any],
    seconds: float,
) -> list[float]:
    """Seconds of one to REPEATS calls of what has run once, as many as fit."""
    over = time.perf_counter() + seconds
    taken = [seconds_of(device, work)]
    while len(taken) < REPEATS and time.perf_counter() + taken[-1] < over:
        taken.append(seconds_of(device, work))
    return taken


def peak_memory(device: torch.device, work: Callable[[], Any]) -> float | None:
    """The most GiB that a call held beside what was there; None where this cannot be told."""
    spent: dict[str, float] = {}
    with costs.measured("work", device, spent, memory=True):
        work()
    mib = spent.get("memory/work_mib")
    return None if mib is None else mib * costs.MIB / GIB


def free_memory(device: torch.device) -> int:
    """Bytes that are free: on the GPU for all processes, or in the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def release_memory(device: torch.device) -> None:
    """Give back what the allocator keeps, so that other processes see it free."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


@contextmanager
def strict_arithmetic() -> Iterator[None]:
    """Convolutions in float32 by deterministic algorithms; the settings are put back."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic
    cudnn.allow_tf32, cudnn.deterministic = False, True
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic = before


# --- images without a data set


def noise(count: int, side: int) -> Data:
    """So many images of noise with CIFAR-10's channels and classes, and a fifth as many for tests.
    The time of a step does not depend on the pixels.
    """

    def samples(size: int, name: str) -> Samples:
        return Samples(pixels(size, side, name), torch.arange(size) % 10)

    train, test = samples(count, "train"), samples(max(count // 5, 10), "test")
    return Data(train, test, 10, "image", mean=cifar10.MEAN, std=cifar10.STD)


def pixels(
    count: int,
    side: int,
    name: str,
) -> Tensor:
    """Random bytes (count, 3, side, side)."""
    draws = seeds.generator(0, "gpu benchmark", name)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=draws)


def or_noise(
    real: Dataset,
    count: int,
    side: int,
) -> Dataset:
    """The data set where it is read from a folder, and so many images of noise for NOWHERE."""
    first, second = (max(size * count // 50_000, 2) for size in EDGE_CASES)

    def load(folder: Path) -> Data:
        return noise(count, side) if folder == NOWHERE else real.load(folder)

    def edge_cases(folder: Path) -> tuple[Tensor, Tensor]:
        if folder != NOWHERE:
            assert real.edge_cases is not None
            return real.edge_cases(folder)
        return pixels(first, side, "edge train"), pixels(second, side, "edge test")

    return real._replace(load=load, edge_cases=edge_cases)


@contextmanager
def images_from_nowhere(side: int) -> Iterator[None]:
    """CIFAR-10 can be loaded from NOWHERE, as many images as its ``samples`` say."""
    read = loading.dataset

    def dataset(part: Part) -> Dataset:
        real = read(part)
        if part.name != "cifar10":
            return real
        return or_noise(real, int(str(part.params.get("samples", 50_000))), side)

    loading.dataset = dataset
    try:
        yield
    finally:
        loading.dataset = read


# --- experiments


def spec_of(
    load: Load,
    dataset: str,
    model: str,
    *,
    missing: int = 0,
    attack: str = "none",
    defense: str = "fedavg",
) -> Spec:
    """All clients train, with as many samples each; ``missing`` of them are one short."""
    samples = load.clients * load.batch * load.steps + ROOT - missing
    return Spec(
        dataset=Part(dataset, {"samples": samples}),
        model=parse_part(model),
        attack=to_chain(attack, "attack"),
        defense=to_chain(defense, "defense"),
        clients=load.clients,
        per_round=load.clients,
        malicious=0.0 if attack == "none" else 0.5,
        alpha=None,
        batch=load.batch,
        root_size=ROOT,
        optimizer=SGD,
    )


def experiment_with(
    spec: Spec,
    engine: str,
    device: torch.device,
) -> Experiment:
    """An experiment whose blocks are trained by the engine, ``loop`` or ``vmap``, on any device."""
    experiment = Experiment(spec, NOWHERE, device.type)
    net = experiment.built.net._replace(vectorized=engine == "vmap", dense=None)
    experiment.built = experiment.built._replace(net=net)
    experiment.clients.open(experiment.built, NOWHERE)
    return experiment


def change_of_round(
    spec: Spec,
    engine: str,
    device: torch.device,
) -> Tensor:
    """What one round changes in parameters and buffers, (d + e,) float64 on the CPU."""
    experiment = experiment_with(spec, engine, device)
    before = experiment.state
    experiment.round()
    after = experiment.state
    change = torch.cat([after.params - before.params, after.buffers - before.buffers])
    return change.cpu().double()


def difference(one: Tensor, other: Tensor) -> float:
    """‖one - other‖ / ‖other‖."""
    return float((one - other).norm() / other.norm())


# --- CPU and GPU agree


class Engine(NamedTuple):
    """A model and what changes its local steps."""

    model: str
    dataset: str
    ways: tuple[str, ...] = ("loop", "vmap")
    attack: str = "none"
    defense: str = "fedavg"


ENGINES = (
    Engine("logistic", "synthetic"),
    Engine("mlp", "synthetic"),
    Engine("mlp(dropout=0.2)", "synthetic"),
    Engine("mlp", "synthetic", defense="fedprox"),
    Engine("mlp", "synthetic", defense="local_dp"),
    Engine("bag_of_words", "topics"),
    Engine("lstm", "topics", ("loop",)),
    Engine("cnn", "cifar10"),
    Engine("cnn", "cifar10", attack="badnets+pgd"),
    Engine("cnn", "cifar10", attack="badnets+neurotoxin"),
    Engine("cnn", "cifar10", attack="badnets+constrain_and_scale"),
    Engine("cnn", "cifar10", attack="badnets+chameleon"),  # a training of its own
    Engine("resnet18(norm=batch)", "cifar10", ("loop",)),
    Engine("resnet18", "cifar10"),
)
RULES = (
    "fedavg",
    "invariant",
    "and_mask",
    "trimmed_mean(trim_fraction=0.2)",
    "median",
    "meamed",
    "krum",
    "multi_krum",
    "bulyan",
    "rfa",
    "nnm",
    "arc",
    "caf",
    "dnc",
    "centered_clipping",
    "norm_clip",
    "weak_dp",
    "bucketing",
    "rlr",
    "sign_majority",
    "foolsgold",
    "sparsefed",
)


def engines(bench: Bench) -> list[Job]:
    """A round on both devices, by each engine that can train the model."""
    return [
        Job(
            {
                "model": engine.model,
                "engine": way,
                "attack": engine.attack,
                "defense": engine.defense,
            },
            partial(_compare_rounds, bench, engine, way),
        )
        for engine in ENGINES
        for way in engine.ways
        if engine.dataset != "cifar10" or parse_part(engine.model).name in bench.sizes.models
    ]


def _compare_rounds(
    bench: Bench,
    engine: Engine,
    way: str,
    _: float,
) -> Figures:
    load = bench.sizes.engines
    missing = load.clients // 2 if load.steps > 1 else 0  # so that last batches differ in size
    spec = spec_of(
        load,
        engine.dataset,
        engine.model,
        missing=missing,
        attack=engine.attack,
        defense=engine.defense,
    )
    there = change_of_round(spec, way, CPU)
    with strict_arithmetic():
        here = change_of_round(spec, way, bench.device)
    first, second = (change_of_round(spec, way, bench.device) for _ in range(2))
    apart = difference(here, there)
    return {
        "difference": apart,
        "tolerance": ROUND_TOLERANCE,
        "agrees": apart <= ROUND_TOLERANCE,
        "with PyTorch's settings": difference(first, there),
        "same bits twice": torch.equal(first, second),
    }


def rules(bench: Bench) -> list[Job]:
    """The aggregate of each rule on both devices."""
    n, d = bench.sizes.rules
    rows = matrix(n, d, CPU)
    for text in RULES:
        apply(text, rows[:, :1000])()  # compiles what runs on the CPU
    return [Job({"rule": text}, partial(_compare_rules, bench, text, rows)) for text in RULES]


def _compare_rules(
    bench: Bench,
    text: str,
    rows: Tensor,
    _: float,
) -> Figures:
    there = apply(text, rows)().cpu().double()
    first, second = (apply(text, rows.to(bench.device))().cpu().double() for _ in range(2))
    apart = difference(first, there)
    return {
        "difference": apart,
        "tolerance": RULE_TOLERANCE,
        "agrees": apart <= RULE_TOLERANCE,
        "same bits twice": torch.equal(first, second),
    }


def matrix(
    n: int,
    d: int,
    device: torch.device,
) -> Tensor:
    """Normal rows (n, d) around a common direction, a fifth of them far away."""
    draws = torch.Generator(device).manual_seed(seeds.stream(0, "gpu benchmark", n, d))
    rows = torch.randn(n, d, generator=draws, device=device)
    rows += torch.randn(d, generator=draws, device=device) / 2
    rows[: n // 5] *= -3
    return rows


def apply(text: str, rows: Tensor) -> Callable[[], Tensor]:
    """A call that maps the rows by the rule and gives their weighted mean (d,). It sees a new
    matrix each time, so that nothing is remembered from the call before.
    """
    (n, d), device = rows.shape, rows.device
    part = parse_part(text)
    params = dict(part.params)
    if "f" in plugins.defense_facts(part.name).needs:
        params["f"] = n // 5
    defense = plugins.build("defenses", part.name, params)
    view = server_view(torch.zeros(d, device=device))
    weight = torch.arange(1.0, n + 1, device=device)
    client = torch.arange(n, device=device)

    def work() -> Tensor:
        here = replace(view, generator=seeds.generator(0, "gpu benchmark"))
        given = Updates(rows[:], weight, client)
        after, _ = defense.apply(given, defense.init(here), here)
        return weighted_mean(after.rows, after.weight)

    return work


# --- the whole cohort at once


def cohort(bench: Bench) -> list[Job]:
    """Local training of one cohort: client by client, in blocks, all at once."""
    clients = bench.sizes.cohort.clients
    ways = {
        "one by one": ("loop", 1),
        "in quarters": ("vmap", max(clients // 4, 1)),
        "all at once": ("vmap", clients),
    }
    alone: dict[str, float] = {}  # model → seconds one by one
    return [
        Job(
            {"model": model, "clients": clients, "way": way},
            partial(_train_cohort, bench, alone, model, engine, block),
        )
        for model in bench.sizes.models
        for way, (engine, block) in ways.items()
    ]


def _train_cohort(
    bench: Bench,
    alone: dict[str, float],
    model: str,
    engine: str,
    block: int,
    seconds: float,
) -> Figures:
    load = bench.sizes.cohort
    spec = spec_of(load, "cifar10", model).replace(block=block)
    experiment = experiment_with(spec, engine, bench.device)
    state, members = experiment.state, experiment.built.cohort(0).tolist()

    def work() -> object:
        return experiment.clients.train(0, members, state.params, state.buffers, state.attack)

    memory = peak_memory(bench.device, work)  # warms up, too
    taken = timed(bench.device, work, seconds)
    median = statistics.median(taken)
    if engine == "loop":
        alone[model] = median
    return {
        "s": median,
        "min s": min(taken),
        "max s": max(taken),
        "images/s": load.clients * load.batch * load.steps / median,
        "times as fast": alone[model] / median if model in alone else None,
        "peak GiB": memory,
    }


# --- rules against memory bandwidth


def bandwidth(bench: Bench) -> list[Job]:
    """Each rule as multiples of the time in which the matrix is read once."""
    matrices: dict[tuple[int, int], Tensor] = {}  # the last one
    reads: dict[tuple[int, int], float] = {}  # seconds of one read
    return [
        Job(
            {"n": n, "d": d, "rule": text},
            partial(_time_rule, bench, matrices, reads, (n, d), text),
        )
        for n, d in bench.sizes.bandwidth
        for text in (ONE_READ, COPY, *RULES[1:])
    ]


ONE_READ, COPY = "(sum over the rows)", "(copy of the matrix)"


def _time_rule(
    bench: Bench,
    matrices: dict[tuple[int, int], Tensor],
    reads: dict[tuple[int, int], float],
    shape: tuple[int, int],
    text: str,
    seconds: float,
) -> Figures:
    if shape not in matrices:
        matrices.clear()
        release_memory(bench.device)
        matrices[shape] = matrix(*shape, bench.device)
    rows = matrices[shape]
    plain: dict[str, Callable[[], Tensor]] = {ONE_READ: lambda: rows.sum(0), COPY: rows.clone}
    work = plain[text] if text in plain else apply(text, rows)
    memory = peak_memory(bench.device, work)  # warms up, too
    taken = timed(bench.device, work, seconds)
    median = statistics.median(taken)
    if text == ONE_READ:
        reads[shape] = median
    return {
        "ms": 1e3 * median,
        "min ms": 1e3 * min(taken),
        "max ms": 1e3 * max(taken),
        "reads": median / reads[shape] if shape in reads else None,
        "GB/s of one read": rows.nbytes / median / 1e9,
        "extra GiB": memory,
    }


# --- trials side by side


def trials(bench: Bench) -> list[Job]:
    """Processes that train the CNN on one device at the same time, as trials of a sweep do."""
    rates: dict[int, float] = {}  # trials → rounds per second of all together
    return [
        Job({"model": "cnn", "trials": count}, partial(_train_side_by_side, bench, rates, count))
        for count in bench.sizes.crews
    ]


def _train_side_by_side(
    bench: Bench,
    rates: dict[int, float],
    count: int,
    _: float,
) -> Figures:
    release_memory(bench.device)
    before = free_memory(bench.device)
    with crew(bench, count) as pipes:
        held = [receive(pipe) for pipe in pipes]  # bytes, once a round is done
        taken = before - free_memory(bench.device)
        each = taken / count if bench.device.type == "cuda" else max(held)
        for pipe in pipes:
            pipe.send(bench.sizes.seconds)
        done = [receive(pipe) for pipe in pipes]
    rates[count] = sum(rounds / seconds for rounds, seconds in done)
    return {
        "rounds/s of all": rates[count],
        "times one trial": rates[count] / rates[1] if 1 in rates else None,
        "GiB a trial": each / GIB,
        "trials that fit": int(before / each) if each > 0 else None,
    }


class Failure(NamedTuple):
    """What a trial answers where it cannot go on."""

    reason: str


@contextmanager
def crew(bench: Bench, count: int) -> Iterator[list[Connection]]:
    """So many trials in processes of their own; they end with the block, whatever happens in it."""
    start = get_context("spawn")  # a GPU cannot be used after a fork
    pairs = [start.Pipe() for _ in range(count)]
    processes = [
        start.Process(target=trial, args=(theirs, bench.device.type, bench.sizes))
        for _, theirs in pairs
    ]
    try:
        for process in processes:
            process.start()
        for _, theirs in pairs:
            theirs.close()  # so that the end of a process is seen
        yield [ours for ours, _ in pairs]
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join()


def receive(pipe: Connection) -> Any:
    """What a trial answers. Raises RuntimeError where it says that it failed, or says nothing."""
    if not pipe.poll(ANSWER):
        raise RuntimeError(f"a trial did not answer in {ANSWER:.0f} s")
    try:
        answer = pipe.recv()
    except EOFError:
        raise RuntimeError("the process of a trial died") from None
    if not isinstance(answer, Failure):
        return answer
    raise RuntimeError(f"a trial failed: {answer.reason}")


def trial(
    pipe: Connection,
    kind: str,
    sizes: Sizes,
) -> None:
    """One process: a round that warms up, then rounds for the seconds that it is told."""
    try:
        device = choose_device(kind)
        with images_from_nowhere(sizes.side):
            spec = sizes.paper.replace(model=Part("cnn"), malicious=0.0)
            experiment = Experiment(spec, NOWHERE, kind)
            experiment.round()
            pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            seconds, rounds, started = pipe.recv(), 0, time.perf_counter()
            while time.perf_counter() < started + seconds:
                experiment.round()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                rounds += 1
            pipe.send((rounds, time.perf_counter() - started))
    except Exception as error:  # noqa: BLE001 -- whatever it is, the table says so
        pipe.send(Failure(one_line(error)))


# --- rounds of the paper's task


def paper(bench: Bench) -> list[Job]:
    """Rounds of ``paper_cifar10``, clean and attacked."""
    cases = (
        ("none", "fedavg"),
        ("edge_case", "invariant(mask_threshold=0.6, trim_fraction=0.45)"),
    )
    folder = images_folder(bench)
    return [
        Job(
            {"model": str(bench.sizes.paper.model), "attack": attack, "defense": defense},
            partial(_train_paper, bench, folder, attack, defense),
        )
        for attack, defense in cases
    ]


def images_folder(bench: Bench) -> Path:
    """The data folder where it holds CIFAR-10 and its edge cases, else NOWHERE."""
    if bench.sizes is TINY:  # for the published size alone
        return NOWHERE
    part = Part("cifar10", {"samples": 50_000})
    try:
        loading.load_dataset(part, bench.folder)
        loading.load_edge_cases(part, bench.folder)
    except BadInput:
        return NOWHERE
    return bench.folder


def _train_paper(
    bench: Bench,
    folder: Path,
    attack: str,
    defense: str,
    seconds: float,
) -> Figures:
    over = time.perf_counter() + seconds
    spec = bench.sizes.paper.replace(
        attack=to_chain(attack, "attack"), defense=to_chain(defense, "defense")
    )
    experiment = Experiment(spec, folder, bench.device.type)
    taken: list[float] = []

    def work() -> None:
        experiment.round()

    work()  # warms up
    cycle = spec.eval_every  # of so many rounds in a row one is evaluated
    while len(taken) < 4 * cycle and (not taken or time.perf_counter() + taken[-1] < over):
        taken.append(seconds_of(bench.device, work))
    whole = taken[: len(taken) // cycle * cycle] or taken
    return {
        "images": "made up" if folder == NOWHERE else "CIFAR-10",
        "clients": spec.per_round,
        "rounds": len(whole),
        "rounds/s": len(whole) / sum(whole),
        "median s": statistics.median(taken),
        "max s": max(taken),
        "evaluation": f"every {cycle}" if len(whole) >= cycle else "not in the rate",
        "reserved GiB": reserved_memory(bench.device),
    }


def reserved_memory(device: torch.device) -> float | None:
    """GiB that the allocator has taken from the GPU and not given back: a measurement's peak."""
    return torch.cuda.memory_reserved(device) / GIB if device.type == "cuda" else None


# --- the budget


SECTIONS = {
    "engines": Section("CPU and device: what a round changes in the model", 0.2, engines),
    "rules": Section("CPU and device: what a rule makes of the rows", 0.12, rules),
    "cohort": Section("Local training of a cohort", 0.2, cohort),
    "bandwidth": Section("Rules against one read of the matrix", 0.14, bandwidth),
    "trials": Section("Trials side by side", 0.17, trials),
    "paper": Section("Rounds of paper_cifar10", 0.17, paper),
}


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raise OutOfTime where the block takes longer."""

    def ring(_: int, __: FrameType | None) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def one_line(error: BaseException) -> str:
    """What went wrong, in one line of at most 200 characters."""
    if isinstance(error, torch.OutOfMemoryError) or isinstance(
        error.__cause__, torch.OutOfMemoryError
    ):
        return "out of memory"
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def measure(
    job: Job,
    share: float,
    limit: float,
    device: torch.device,
) -> Figures:
    """The line of a job: its label with its figures, or with a note or an error."""
    try:
        with at_most(limit):
            figures = job.measure(share)
    except OutOfTime:
        figures = {"note": f"stopped after {limit:.0f} s"}
    except Exception as error:  # noqa: BLE001 -- one failure must not cost the other lines
        line = one_line(error)
        kind = "note" if line == "out of memory" else "error"
        figures = {kind: line}
    release_memory(device)  # here, where no traceback holds on to tensors
    return job.label | figures


def conduct(
    jobs: Sequence[Job],
    deadline: float,
    device: torch.device,
) -> list[Figures]:
    """The lines of a section; those that the deadline leaves no time for say so."""
    lines = []
    for index, job in enumerate(jobs):
        left = deadline - time.perf_counter()
        if left <= 0:
            lines.append(job.label | {"note": "not run: the budget was spent"})
            continue
        share = left / (len(jobs) - index)
        lines.append(measure(job, share, min(PATIENCE * share, left), device))
    return lines


def cell(value: object) -> str:
    """A value as a table shows it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def table(lines: Sequence[Figures]) -> str:
    """The lines as a Markdown table; columns in the order in which they first come."""
    columns = list(dict.fromkeys(column for line in lines for column in line))
    shown = [[cell(line[column]) if column in line else "" for column in columns] for line in lines]
    rows = [columns, ["---"] * len(columns), *shown]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def failures(sections: dict[str, Any]) -> list[str]:
    """The lines that disagree or failed, in words."""
    return [
        f"{name}: {' '.join(str(value) for value in line.values())}"
        for name, section in sections.items()
        for line in section["lines"]
        if "error" in line or line.get("agrees") is False
    ]


def facts(device: torch.device) -> Figures:
    """What the figures depend on."""
    known: Figures = {
        "fingerprint": fingerprint(device),
        "device": device.type,
        "rules on the CPU": "compiled" if robust.COMPILED else "in torch: numba is not installed",
        "cores": os.cpu_count(),
    }
    if device.type == "cuda":
        known |= {
            "memory GiB": torch.cuda.mem_get_info(device)[1] / GIB,
            "CUDA": torch.version.cuda,
            "cuDNN": torch.backends.cudnn.version(),
            "convolutions in TF32": torch.backends.cudnn.allow_tf32,
            "deterministic cuDNN": torch.backends.cudnn.deterministic,
        }
    return known


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The options. Ends with exit code 2 where one is not allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all sections")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="which, comma-separated")
    parser.add_argument("--tiny", action="store_true", help="sizes that take seconds on a CPU")
    parser.add_argument(
        "--out", type=Path, help="the JSON file; benchmarks/gpu.json, with --tiny none"
    )
    options = parser.parse_args(given)
    unknown = [name for name in options.sections.split(",") if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    if not options.budget > 0:
        parser.error(f"--budget {options.budget:g} is not allowed; seconds above 0")
    if options.out is None and not options.tiny:
        options.out = HERE / "gpu.json"
    if options.out and not options.out.parent.is_dir():
        parser.error(f"--out {options.out}: there is no folder {options.out.parent}")
    try:
        options.device = choose_device(options.device)
    except BadInput as error:
        parser.error(str(error))
    return options


def main(given: Sequence[str] | None = None) -> int:
    """Measure the sections, print their tables and write the JSON; the exit code."""
    started = time.perf_counter()
    options = arguments(given)
    sizes = TINY if options.tiny else FULL
    bench = Bench(options.device, sizes, loading.data_folder())
    chosen = {name: SECTIONS[name] for name in options.sections.split(",")}
    shares = sum(section.share for section in chosen.values())
    report: dict[str, Any] = facts(bench.device) | {"tiny": options.tiny, "sections": {}}
    print("\n".join(f"{name}: {cell(value)}" for name, value in report.items() if value != {}))
    spent = 0.0
    with images_from_nowhere(sizes.side):
        for name, section in chosen.items():
            spent += section.share / shares
            deadline, began = started + spent * options.budget, time.perf_counter()
            lines = conduct(section.jobs(bench), deadline, bench.device)
            report["sections"][name] = {
                "title": section.title,
                "seconds": time.perf_counter() - began,
                "lines": lines,
            }
            if options.out:
                options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
            print(f"\n{section.title}\n\n{table(lines)}", flush=True)
    failed = failures(report["sections"])
    for line in failed:
        print(f"FAILED {line}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
