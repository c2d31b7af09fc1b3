"""What driver and client actors hold at most in rounds whose rows are gathered in one process, and
in rounds whose rows stay apart.

    python benchmarks/apart.py --clients 20 --hidden 3300 --actors 3 --defense norm_clip+median

Local training is a single step, so that the rows are what counts. Own memory is what a process
alone has; shared memory are the pages of the object store that it has looked at, which all
processes of a node share.
"""

from __future__ import annotations

import argparse
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import Experiment
from backstop.platform.specs.part import to_chain
from backstop.platform.workers.actors import ActorShare, OnActors
from backstop.platform.workers.connection import local_ray

SAMPLED_S = 0.02  # seconds between two looks
KINDS = {"RssAnon": "own", "RssShmem": "shared"}  # of proc(5), status


def actors() -> list[Path]:
    """The client actors of this machine, by their folders in /proc."""
    return [line.parent for line in Path("/proc").glob("[0-9]*/cmdline") if _is_actor(line)]


def _is_actor(line: Path) -> bool:
    try:
        return line.read_bytes().startswith(b"ray::Worker")
    except OSError:
        return False


def held(process: Path) -> dict[str, int]:
    """MiB of each kind that a process holds now."""
    found = {}
    for line in (process / "status").read_text(encoding="ascii").splitlines():
        name, _, value = line.partition(":")
        if name in KINDS:
            found[KINDS[name]] = int(value.split()[0]) // 1024
    return found


@contextmanager
def peaks(processes: dict[str, Path]) -> Iterator[dict[str, dict[str, int]]]:
    """The most of each kind that each process holds meanwhile, and what it held before."""
    most = {name: held(process) for name, process in processes.items()}
    for name, before in list(most.items()):
        most[name] = {**before, "before": before["own"]}
    done = threading.Event()

    def look() -> None:
        while not done.wait(SAMPLED_S):
            for name, process in processes.items():
                for kind, value in held(process).items():
                    most[name][kind] = max(most[name][kind], value)

    watch = threading.Thread(target=look)
    watch.start()
    try:
        yield most
    finally:
        done.set()
        watch.join()


def main() -> None:
    """Print a line for each process and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=3300, help="width of the two hidden layers")
    parser.add_argument("--actors", type=int, default=3)
    parser.add_argument("--defense", default="norm_clip+median")
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    spec = Spec(
        model=Part("mlp", {"hidden": f"{options.hidden}-{options.hidden}"}),
        clients=options.clients,
        per_round=options.clients,
        block=1,
        batch=128,
        root_size=20,
        rounds=options.rounds,
        eval_every=options.rounds,
        attack=(Part("badnets"),),
        malicious=0.2,
        defense=to_chain(options.defense, "defense"),
    )
    with local_ray(None, cpus=options.actors + 1):
        for in_sections in (False, True):
            workers = OnActors(options.actors, share=ActorShare(0.5), in_sections=in_sections)
            _measure(spec, workers)


def _measure(spec: Spec, workers: OnActors) -> None:
    experiment = Experiment(spec, Path("unused"), "cpu", workers)
    processes = {"driver": Path("/proc/self")}
    processes |= {f"actor {number}": where for number, where in enumerate(actors(), 1)}
    with peaks(processes) as most:
        while experiment.rounds_left:
            experiment.round()
    d = len(experiment.state.params)
    digest = hashlib.sha256(experiment.state.params.numpy().tobytes()).hexdigest()[:12]
    way = "apart" if workers.apart else "gathered"
    print(f"{way}: rows ({spec.per_round}, {d:,}), {4 * spec.per_round * d >> 20} MiB; {digest}")
    for name, kinds in most.items():
        print(f"  {name}: {', '.join(f'{kind} {value} MiB' for kind, value in kinds.items())}")
    experiment.close()


if __name__ == "__main__":
    main()
