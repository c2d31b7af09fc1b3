"""The command line. Results go to stdout, progress and messages to stderr.

Exit codes: 0 done; 1 a run failed or is not stored, or a verification disagrees; 2 bad input, one line on stderr; 130 interrupted, and the
same command goes on from there.
"""

from __future__ import annotations

import argparse
import errno
import json
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn

from backstop import __version__
from backstop.platform import costs, plain
from backstop.platform.contract import BrokenStage
from backstop.platform.params import BadInput, nearest

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A command refuses its own unknown options, since it knows the near ones."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            known = [option for action in self._actions for option in action.option_strings]
            hint = f"; {nearest(rest[0].split('=')[0], known)}" if rest[0].startswith("-") else ""
            self.error(f"unknown {'option' if hint else 'word'} {rest[0]!r}{hint}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """One line, with the nearest match where a word is misspelt."""
        if "invalid choice" in message:
            word = message.split("invalid choice: ")[1].split("'")[1]
            message = (
                f"unknown word {word!r}; {nearest(word, [str(choice) for action in self._actions for choice in action.choices or ()])}"
            )
        raise BadInput(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        plain.settle(stream)
    try:
        options = parser().parse_args(arguments)
        code: int = options.command(options)
    except BadInput as error:
        print(f"backstop: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except BrokenStage as error:
        print(f"backstop: the run failed: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("backstop: interrupted; what is finished is kept, the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, e.g. `backstop list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"backstop: {error.filename or 'the disk'}: {error.strerror}; what was stored is kept,"
            " the same command goes on from there once there is room",
            file=sys.stderr,
        )
        return FAILED
    return code


def _interrupt(*_: object) -> NoReturn:
    """A polite request to stop is an interruption too."""
    raise KeyboardInterrupt


def parser() -> Parser:
    """All commands and their options."""
    top = Parser(
        prog="backstop", description="Every federated backdoor attack against every defense, as a leaderboard anyone can regenerate."
    )
    top.add_argument("--version", action="version", version=f"backstop {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def command(name: str, function: Callable[[argparse.Namespace], int], text: str) -> Parser:
        added: Parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        added.set_defaults(command=function)
        return added

    one = command("run", run, "Run one experiment.")
    _spec_options(one)
    _compute_options(one, actors="0")
    one.add_argument("--experiment", default="runs", metavar="NAME", help="MLflow experiment that takes the run (default: runs)")
    one.add_argument("--save", metavar="FILE", help="write the final model there as .safetensors, for another run's --start")
    one.add_argument("--json", action="store_true", help="one JSON document on stdout")

    many = command("sweep", sweep, "Run a search space and rank what comes out.")
    many.add_argument("space", metavar="SPACE", help="a name in search_spaces/, or the path of a .py file")
    many.add_argument("--experiment", metavar="NAME", help="MLflow experiment (default: the space's name)")
    many.add_argument("--out", metavar="DIR", help="folder for the leaderboard files (default: leaderboards/NAME in the store)")
    many.add_argument("--seeds", metavar="N|A,B,…", help="how many seeds, or which, in place of the space's own")
    many.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change every spec that has it, e.g. rounds=60, optimizer.lr=0.05 or attack.strength=1",
    )
    many.add_argument("--trials", type=int, metavar="N", help="proposals of a search, in place of its own number")
    many.add_argument("--max-concurrent", type=int, metavar="N", help="at most N trials at a time (default: as many as fit)")
    many.add_argument("--dry-run", action="store_true", help="print the plan and start nothing")
    many.add_argument("--mix-fingerprints", action="store_true", help="rank runs of different versions or devices together")
    many.add_argument("--json", action="store_true", help="the leaderboard (or the plan) as one JSON document on stdout")
    _compute_options(many, actors="auto")

    board = command("leaderboard", leaderboard, "Rank the finished runs of an experiment and write the leaderboard files.")
    board.add_argument("--experiment", required=True, metavar="NAME", help="MLflow experiment")
    board.add_argument("--out", metavar="DIR", help="folder for the files (default: leaderboards/NAME in the store)")
    board.add_argument("--mix-fingerprints", action="store_true", help="rank runs of different versions or devices together")
    board.add_argument("--json", action="store_true", help="the leaderboard as one JSON document on stdout")
    _store_option(board)

    again = command("verify", verify, "Run some rows of a leaderboard again and compare every digit.")
    again.add_argument("file", metavar="FILE", help="a leaderboard.json")
    again.add_argument("--sample", type=int, default=3, metavar="N", help="how many runs to do again (default: 3)")
    _device_options(again)

    words = ["attacks", "defenses", "datasets", "models", "search-spaces"]
    listing = command("list", list_, "List the plug-ins.")
    listing.add_argument("group", nargs="?", choices=words, metavar="GROUP", help=" | ".join(words))
    listing.add_argument("--json", action="store_true", help="an array of objects on stdout")

    sheet = command("show", show, "Show the data sheet of a plug-in.")
    sheet.add_argument("name", metavar="NAME", help="an attack, defense, dataset, model or search space")
    sheet.add_argument("--json", action="store_true", help="one JSON document on stdout")

    files = command("data", data, "Show which datasets are there, what is missing and how to get it.")
    files.add_argument(
        "name", nargs="?", metavar="NAME", help="one dataset, with its parameters where it needs some: 'table(path=mine.csv, label=class)'"
    )
    files.add_argument("--download", action="store_true", help="download what is missing, where the dataset can and a network allows it")
    files.add_argument("--json", action="store_true", help="an array of objects on stdout")
    files.add_argument("--data-dir", metavar="DIR", help="data folder (default: $BACKSTOP_DATA, else ~/.cache/backstop)")

    page = command("ui", ui, "Open MLflow's UI on the store in use.")
    page.add_argument("--port", type=int, default=5000, metavar="N", help="port on this machine (default: 5000)")
    _store_option(page)
    return top


def _spec_options(to: Parser) -> None:
    """One option for every field of the Spec, read from its annotations."""
    from backstop.platform import specs
    from backstop.platform.contract import Spec

    group = to.add_argument_group("experiment")
    plain = Spec()
    for name, text in (
        ("dataset", "dataset"),
        ("model", "model"),
        ("attack", "attack stages joined by +"),
        ("defense", "defense stages joined by +"),
        ("optimizer", "of local training, e.g. 'adam(lr=0.001)'"),
    ):
        now = getattr(plain, name)
        default = specs.text(now, name) if name in specs.NOTHING else str(now)
        group.add_argument(
            f"--{name}",
            metavar="TEXT",
            help=f"{text}, e.g. {_example(name)} (default: {default})" if name != "optimizer" else f"{text} (default: {default})",
        )
    for name, declared in specs.scalars().items():
        default = "none" if declared.default is None else declared.default
        group.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="VALUE",
            help=f"{declared.text}; {declared.allowed} (default: {default})".replace("%", "%%"),
        )


def _example(name: str) -> str:
    return {
        "dataset": "cifar10",
        "model": "cnn",
        "attack": "'badnets(size=3)+model_replacement(strength=5)'",
        "defense": "'invariant(mask_threshold=0.6)'",
    }[name]


def _device_options(to: Parser) -> None:
    to.add_argument("--device", default="auto", metavar="KIND", help="auto, cpu or cuda (default: auto)")
    to.add_argument("--data-dir", metavar="DIR", help="data folder (default: $BACKSTOP_DATA, else ~/.cache/backstop)")


def _store_option(to: Parser) -> None:
    to.add_argument(
        "--store",
        default="backstop-store",
        metavar="DIR",
        help="folder of runs and checkpoints (default: ./backstop-store); $MLFLOW_TRACKING_URI moves the runs",
    )


def _compute_options(to: Parser, actors: str) -> None:
    to.add_argument(
        "--client-actors",
        default=actors,
        metavar="auto|K",
        help=f"Ray actors that train the clients of one trial; 0: its own process (default: {actors})",
    )
    to.add_argument(
        "--ray-address",
        default=os.environ.get("RAY_ADDRESS") or None,
        metavar="ADDRESS",
        help="Ray cluster (default: $RAY_ADDRESS, else a private local Ray)",
    )
    _device_options(to)
    _store_option(to)


def _actors(text: str) -> str | int:
    if text == "auto" or text.isdigit():
        return text if text == "auto" else int(text)
    raise BadInput(f"--client-actors {text!r} is not allowed; auto or a number from 0 on")


def _seeds(text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        listed = [int(word) for word in text.split(",")]
    except ValueError:
        raise BadInput(f"--seeds {text!r} is not allowed; a number of seeds, or seeds joined by commas such as 0,1,2") from None
    if min(listed) < 0 or listed == [0]:
        raise BadInput(f"--seeds {text!r} is not allowed; a number of seeds from 1 on, or seeds from 0 on joined by commas")
    return listed if len(listed) > 1 or text.endswith(",") else list(range(listed[0]))


def _changes(pairs: Sequence[str]) -> dict[str, Any]:
    from backstop.platform import specs

    for pair in pairs:
        if "=" not in pair:
            raise BadInput(f"--set {pair!r} is not of the form key=value; example: rounds=5")
    return {key.strip(): specs.value(new.strip()) for key, _, new in (pair.partition("=") for pair in pairs)}


def _spec(options: argparse.Namespace) -> Any:
    from backstop.platform import specs
    from backstop.platform.contract import Spec

    spec = Spec()
    for key in ("dataset", "model", "attack", "defense", "optimizer"):
        if getattr(options, key) is not None:
            spec = specs.change(spec, key, getattr(options, key))
    for key in specs.scalars():
        if getattr(options, key) is not None:
            option = f"--{key.replace('_', '-')}"
            spec = specs.change(spec, key, specs.value(getattr(options, key)), option)
    return specs.validate(spec)


def _console() -> Any:
    """A terminal's own width; room for a table where stdout is a file or a pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 110)


def _print_json(document: Any) -> None:
    def finite(item: Any) -> Any:
        if isinstance(item, float) and not math.isfinite(item):
            return None
        if isinstance(item, Mapping):
            return {key: finite(member) for key, member in item.items()}
        return [finite(member) for member in item] if isinstance(item, (list, tuple)) else item

    text = json.dumps(finite(document), ensure_ascii=False, allow_nan=False, indent=1)
    # Where the stream lacks a character, JSON's own escapes keep the document as it is.
    print(text if plain.carries(sys.stdout, text) else json.dumps(json.loads(text), indent=1))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _usable_store(options: argparse.Namespace) -> Any:
    """The store that a command writes to, checked; where it was moved or copied, its places are mended and that is said."""
    from backstop.platform import tracking

    store = tracking.store(Path(options.store))
    tracking.reachable(store)
    if mended := tracking.settle(store):
        _say(f"backstop: {mended}")
    return store


def _readable_store(options: argparse.Namespace) -> Any:
    """The store that a command only reads; where it can be written too, it is mended first."""
    from backstop.platform import tracking

    store = tracking.store(Path(options.store))
    tracking.reachable(store, write=False)
    if not tracking.read_only(store) and (mended := tracking.settle(store)):
        _say(f"backstop: {mended}")
    return store


def _say_interrupted(lost: Any) -> None:
    """Say what nobody works on any more: the runs, or the sweep where all of its runs have ended."""
    from backstop.platform.leaderboard import plural

    what = plural(lost.runs, "run") if lost.runs else plural(lost.sweeps, "sweep")
    was, them = ("was", "it") if what.startswith("1 ") else ("were", "them")
    if any(lost):
        _say(f"backstop: {what} {was} interrupted, nobody works on {them} any more; the same command goes on from there")


def run(options: argparse.Namespace) -> int:
    """``backstop run``: one experiment, printed round by round."""
    from contextlib import ExitStack

    from backstop.platform import drivers, federation, finals, origin, specs, starts, tracking
    from backstop.platform.checkpoint import Checkpoint
    from backstop.platform.clients import OnActors, local_ray, spread
    from backstop.platform.experiment import Experiment
    from backstop.platform.underway import Underway

    spec = _spec(options)
    actors, device = _actors(options.client_actors), federation.device(options.device).type
    tracking.check_name(options.experiment)
    folder, store = federation.data_folder(options.data_dir), _usable_store(options)
    saved = starts.writable(options.save) if options.save else None
    place = tracking.home(store, Path(options.store))
    with ExitStack() as stack:
        driver = stack.enter_context(drivers.at_work(place))
        under = Underway(store, options.experiment, driver, place)
        stack.callback(under.release)
        if under.number:
            _say_interrupted(tracking.interrupted(store, Path(options.store), options.experiment))
        stored = tracking.find(store, options.experiment, spec)
        if stored is not None:
            return _finished(options, store, spec, stored, folder, saved)
        if spec.warmup:
            _say(f"the first of those that share it makes the warm-up: {spec.warmup} rounds of clean FedAvg")
        clients = None
        if actors:
            ray = stack.enter_context(local_ray(options.ray_address))
            have = ray.cluster_resources()
            count, share = spread(actors, 1, have.get("CPU", 1), have.get("GPU", 0), device)
            clients = OnActors(count, device=device, share=share)
        experiment = Experiment(spec, folder, options.device, clients)
        stack.callback(experiment.close)
        checkpoint = Checkpoint(Path(options.store) / "checkpoints", spec.id)
        begun = checkpoint.read()
        torn = origin.other_data(begun.origin.data, spec.dataset, folder) if begun else ""
        if torn:
            raise BadInput(f"this run has begun, and {torn}; put the old data back, or remove {checkpoint.path} to begin anew")
        under.begin(experiment, checkpoint)
        if checkpoint.note:
            _say(f"backstop: {checkpoint.note}")
        _say(f"{specs.title(spec)} on {spec.dataset}, {spec.model}; id {spec.id[:12]}")
        if under.records:
            _say(f"going on after round {experiment.state.round} of {spec.rounds}")
        try:
            _train(under)
        except KeyboardInterrupt:
            lost = under.save()
            _say(f"backstop: interrupted after round {experiment.state.round} of {spec.rounds}; {_from_there(checkpoint, lost)}")
            return INTERRUPTED
        final = finals.final(under.records)
        for doubt in filter(None, [finals.unmoved(under.records), *finals.doubts(final)]):
            _say(f"backstop: {doubt}")
        model = experiment.built.net.tensors(experiment.state.params, experiment.state.buffers)
        run_id, finding, reason = _store(under, final, model)
        if reason:
            _say(f"backstop: trained but not stored in {store.uri}: {reason}; {_kept(under)}")
        else:
            checkpoint.drop()
        if finding:
            _say(f"backstop: {finding}")
        if saved:
            _say(f"wrote {saved}; start from it with --start {saved} ({starts.save(saved, model)[:14]}…)")
    if options.json:
        rounds = [{"round": record.round, "metrics": dict(record.metrics)} for record in under.records]
        nothing: dict[str, float] = {}
        timing = reduce(costs.add, (record.costs for record in under.records), nothing)
        _print_json({"id": spec.id, "spec": specs.to_json(spec), "rounds": rounds, "final": final, "timing": timing, "run_id": run_id})
    return FAILED if reason or finding else DONE


def _train(under: Any) -> None:
    """All rounds that are left, each printed and kept."""
    from backstop.platform.live import percent

    experiment = under.experiment
    total = experiment.spec.rounds
    while experiment.state.round < total:
        try:
            record = experiment.round()
        except Exception as error:
            under.failed(error)
            raise
        if record is not None:
            under.add(record)
            last = record.metrics
            spent = sum(value for name, value in record.costs.items() if name.startswith("time/"))
            _say(
                f"round {record.round + 1:>{len(str(total))}}/{total}"
                f"  accuracy {percent(last.get('round/clean_accuracy')):>7}"
                f"  attack success {percent(last.get('round/attack_success_rate')):>7}"
                f"  {_anyway(last)}train loss {last.get('round/train_loss', math.nan):.3f}  {spent:.2f} s"
            )
        if experiment.state.round < total:
            under.now_and_then()


def _store(under: Any, final: Mapping[str, float], model: Mapping[str, Any]) -> tuple[str | None, str, str]:
    """Store a run: its MLflow id, how a run of the same spec differs from it, and why it was not possible."""
    try:
        log = under.open()
    except BadInput as error:
        return None, "", str(error)
    sent = log.finish(final, model)
    return log.run_id, log.finding, "" if sent else log.error or "the store did not take it"


def _from_there(checkpoint: Any, lost: str) -> str:
    """What the same command does after an interruption."""
    if lost:
        return f"it could not be kept in {checkpoint.path.parent} ({lost}); {_from_what_is_left(checkpoint)}"
    return "the same command goes on from there"


def _from_what_is_left(checkpoint: Any) -> str:
    """Where a run begins that could not be kept."""
    if checkpoint.path.exists():
        return "the same command goes on from an earlier round"
    return "the same command trains it again"


def _kept(under: Any) -> str:
    """Keep a run that could not be stored; what became of it, in words."""
    folder, lost = under.checkpoint.path.parent, under.save()
    if lost:
        return f"it could not be kept in {folder} either ({lost}); {_from_what_is_left(under.checkpoint)}"
    return f"it is kept in {folder}; the same command sends it, without training again"


def _finished(options: argparse.Namespace, store: Any, spec: Any, stored: Any, folder: Path, saved: Path | None) -> int:
    """A spec that is finished already: where, and its figures. Nothing is trained, nothing is written to it."""
    from backstop.platform import federation, origin, starts, tracking
    from backstop.platform.live import percent

    where = f"experiment {options.experiment!r} of {store.uri}, MLflow run {stored.run_id}"
    anew = "to run it anew, give it another --experiment"
    changed = origin.other_data(stored.data, spec.dataset, folder)
    if changed:
        raise BadInput(f"this spec is finished in {where}, and {changed}; put the old data back; {anew}")
    _say(f"finished already: {where}; {anew}")
    here = federation.fingerprint(federation.device(options.device))
    if stored.fingerprint != here:
        _say(f"backstop: note: it was made with {stored.fingerprint}; this is {here}")
    _warn_of_code([origin.Made(spec, stored.origin)])
    figures = stored.metrics
    _say(f"accuracy {percent(figures.get('final/clean_accuracy'))}  attack success {percent(figures.get('final/attack_success_rate'))}")
    if saved:
        name = starts.save(saved, tracking.model(store, stored.run_id))
        _say(f"wrote {saved}; start from it with --start {saved} ({name[:14]}…)")
    if options.json:
        rounds = [{"round": number, "metrics": metrics} for number, metrics in tracking.rounds(store, stored.run_id)]
        timing = {costs.phase_name(name): value for name, value in stored.costs.items()}
        final = dict(figures)
        document = {"id": spec.id, "spec": dict(stored.spec), "rounds": rounds, "final": final, "timing": timing}
        _print_json({**document, "run_id": stored.run_id})
    return DONE


def _anyway(metrics: Mapping[str, float]) -> str:
    """How often the same inputs get the wanted label without the trigger, where that is known."""
    from backstop.platform.live import percent

    rate = metrics.get("round/untriggered_target_rate")
    return "" if rate is None else f"untriggered {percent(rate):>7}  "


def sweep(options: argparse.Namespace) -> int:
    """``backstop sweep``: everything of a search space that is not finished yet, then the leaderboard."""
    import dataclasses

    from backstop.platform import federation, plan, rays, tracking
    from backstop.platform.contract import Search

    _actors(options.client_actors)
    device = federation.device(options.device).type
    changes, seeds = _changes(options.set), _seeds(options.seeds)
    found = plan.altered(plan.space(options.space), changes, seeds, lambda line: _say(f"backstop: {line}"))
    title = Path(options.space).stem
    name = options.experiment or title
    if options.trials is not None and options.trials < 1:
        raise BadInput(f"--trials {options.trials} is not allowed; a number of proposals from 1 on")
    if options.trials is not None and not isinstance(found, Search):
        raise BadInput(f"--trials is for a search; {options.space} is a list of {len(found)} specs")
    if isinstance(found, Search):
        from backstop.platform.search import Proposals

        if options.trials is not None:
            found = dataclasses.replace(found, trials=options.trials)
        source: plan.Source = Proposals(found)
        planned = plan.distinct(found.base.replace(seed=seed, defense=()) for seed in found.seeds)
    else:
        planned = plan.warm_first(plan.with_twins(plan.distinct(found)))
        source = plan.Fixed(planned)
    if options.dry_run:
        return _dry_run(options, found, planned)
    tracking.check_name(name)
    if tracking.is_new(_usable_store(options)):
        rays.check(options.ray_address)  # before a store is made
    folder = federation.data_folder(options.data_dir)
    queue = _conduct(options, source, planned, title, name, folder, device)
    if isinstance(source, plan.Fixed):
        try:
            _rank(options, name, {spec.id: plan.words(spec) for spec in planned})
        except BadInput as error:
            if not queue.unstored:
                raise
            _say(f"backstop: no leaderboard now: {error}")
    else:
        _print_trials(options, source)
    complaints = _complaints(queue, Path(options.store) / "checkpoints")
    for line in complaints:
        _say(f"backstop: {line}")
    return FAILED if complaints else DONE


def _complaints(queue: Any, checkpoints: Path) -> list[str]:
    """Which runs of a sweep failed or are not stored, and why: a line for each reason."""
    from backstop.platform.leaderboard import plural

    kinds: dict[tuple[str, str, str], list[str]] = {}
    for spec_id, reason in queue.failures.items():
        kinds.setdefault(("failed", reason, "the same command tries again"), []).append(spec_id)
    for spec_id, item in queue.unstored.items():
        kept = f"kept in {checkpoints}; the same command sends what waits, without training again"
        lost = f"not kept in {checkpoints} either; the same command trains again"
        kinds.setdefault(("trained but not stored", item.reason, kept if item.kept else lost), []).append(spec_id)
    lines = []
    for (what, reason, remedy), ids in kinds.items():
        which = _listed([queue.specs[spec_id] for spec_id in ids])
        lines.append(f"{plural(len(ids), 'run')} {what}: {reason} ({which}); {remedy}")
    return [*lines, *queue.findings]


def _listed(specs: Sequence[Any], most: int = 5) -> str:
    """Runs for people, the first few of many."""
    from backstop.platform import plan

    named = [f"{spec.id[:12]} {plan.words(spec)}" for spec in specs[:most]]
    return "; ".join([*named, *([f"and {len(specs) - most} more"] if len(specs) > most else [])])


def _conduct(options: argparse.Namespace, source: Any, planned: Sequence[Any], title: str, name: str, folder: Path, device: str) -> Any:
    """Open the store, rehearse, start Ray, run what is left; the queue, which knows how everything ended."""
    from concurrent.futures import ThreadPoolExecutor
    from contextlib import ExitStack

    from backstop.platform import drivers, plan, rays, tracking, waiting
    from backstop.platform.clients import local_ray, spread
    from backstop.platform.leaderboard import plural
    from backstop.platform.live import Watch

    actors, store = _actors(options.client_actors), tracking.store(Path(options.store))
    checkpoints = Path(options.store).resolve() / "checkpoints"

    def opened() -> tuple[str, list[Any]]:
        experiment = tracking.open_experiment(store, name)
        _say_interrupted(tracking.interrupted(store, Path(options.store), name))
        return experiment, tracking.read(store, name)

    place = tracking.home(store, Path(options.store))

    def release() -> None:
        """Once Ray has ended: nobody works on this sweep's runs any more."""
        if opening.done() and not opening.exception() and tracking.stop(store, opening.result()[0], driver):
            drivers.forget(place, driver)

    with ExitStack() as stack:
        driver = stack.enter_context(drivers.at_work(place))
        # A new store takes MLflow seconds to make, Ray takes seconds to start: side by side. An old store may hold all there is to run.
        opening = stack.enter_context(ThreadPoolExecutor(1)).submit(opened)
        stack.callback(release)
        fresh = tracking.is_new(store)
        if fresh:
            plan.rehearse(planned, folder, device)
            _say(f"{title}: starting Ray and a new store in {options.store} …")
            ray = stack.enter_context(local_ray(options.ray_address))
        experiment, finished = opening.result()
        queue = plan.Queue(source, {run.id: run.metrics for run in finished})
        left = queue.fill()
        _same_origin(options, queue, finished, planned, name, folder, device)
        parent = tracking.parent(store, experiment, title, driver=driver)
        if isinstance(source, plan.Fixed):
            tracking.plan(store, parent, {spec.id: plan.words(spec) for spec in planned})
        address = waiting.Address(store, experiment, parent, title, checkpoints, driver)
        if sent := waiting.send(queue.waiting, queue, address):
            _say(f"{title}: stored {plural(len(sent), 'run')} that waited in {checkpoints}, without training again")
            queue.waiting = [spec for spec in queue.waiting if spec.id not in sent]
            queue.skipped += len(sent)
            left = queue.fill()
        if not left:
            tracking.close(store, parent, "FINISHED")
            _say(f"{title}: all {queue.expected} runs are finished already in experiment {name!r}")
            return queue
        if not fresh:
            rays.check(options.ray_address)
            plan.rehearse(queue.waiting, folder, device)
            _say(f"{title}: starting Ray; {queue.skipped} of {queue.expected} runs are finished already …")
            ray = stack.enter_context(local_ray(options.ray_address))
        from backstop.platform.sweep import Progress, Task
        from backstop.platform.sweep import sweep as run_all

        have = ray.cluster_resources()
        count, share = spread(actors, len(queue.waiting), have.get("CPU", 1), have.get("GPU", 0), device)
        task = Task(store, experiment, parent, title, checkpoints, folder.resolve(), device, count, share, driver)
        with Watch(title, queue) as watch:
            run_all(queue, task, Progress(watch.started, watch.result, watch.ended), have, options.max_concurrent)
        if any(item.kept for item in queue.unstored.values()):
            reason = next(iter(queue.unstored.values())).reason
            limit = waiting.patience(store)
            _say(f"{title}: {plural(len(queue.unstored), 'run')} not stored yet ({reason}); trying for up to {limit:.0f} s …")
            if sent := waiting.insist(queue, address):
                _say(f"{title}: {plural(len(sent), 'run')} stored now")
        tracking.close(store, parent, "FAILED" if queue.unstored or queue.failures else "FINISHED")
    return queue


def _same_origin(
    options: argparse.Namespace,
    queue: Any,
    finished: Sequence[Any],
    planned: Sequence[Any],
    name: str,
    folder: Path,
    device: str,
) -> None:
    """Before anything is trained: the data of stored and of half-done runs are those of today, and the
    versions those of the store. BadInput where not; a plug-in's changed code is warned of.
    """
    from backstop.platform import federation, origin
    from backstop.platform.checkpoint import Checkpoint

    checkpoints = Path(options.store) / "checkpoints"
    datasets = {str(spec.dataset) for spec in planned}
    stored = [item for item in _made(finished) if str(item.spec.dataset) in datasets]
    saved = [(spec, Checkpoint(checkpoints, spec.id).read()) for spec in queue.waiting]
    begun = [origin.Made(spec, found.origin) for spec, found in saved if found is not None]
    try:
        changed = origin.other_data_of(stored, folder)
        torn = origin.other_data_of(begun, folder)
    except BadInput as error:
        if queue.waiting:
            raise
        _say(f"backstop: whether the data are still those of the runs is not known: {error}")
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
    _warn_of_code([*stored, *begun])
    if not queue.waiting or options.ray_address:  # a cluster's devices are not known here
        return
    here = federation.fingerprint(federation.device(device))
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
            _say(f"run {spec.id[:12]} begins anew: its first rounds were made with {other}")


def _made(runs: Sequence[Any]) -> list[Any]:
    """Stored runs as the checks of their origin need them, without those whose plug-ins are gone."""
    from backstop.platform import origin, specs

    found = []
    for run in runs:
        try:
            found.append(origin.Made(specs.from_json(run.spec), run.origin))
        except BadInput:
            continue
    return found


def _warn_of_code(made: Sequence[Any]) -> None:
    """A line where a plug-in's code is not what stored runs of its VERSION were made with."""
    from backstop.platform import origin
    from backstop.platform.leaderboard import plural

    changed = origin.changed_plugins(made)
    if changed:
        _say(
            f"backstop: warning: the code of {', '.join(changed)} has changed since "
            f"{plural(max(changed.values()), 'stored run')} with the same VERSION; "
            "raise VERSION if its numbers change, then the runs are made anew"
        )


def _dry_run(options: argparse.Namespace, found: Any, planned: Sequence[Any]) -> int:
    """Print what would run."""
    from backstop.platform import specs

    listed = [{"id": spec.id, "spec": specs.to_json(spec)} for spec in planned]
    if options.json:
        _print_json({"space": options.space, "specs": listed, "search": None if isinstance(found, list) else list(found.free)})
        return DONE
    for spec in planned:
        print(f"{spec.id[:12]}  seed {spec.seed}  {specs.title(spec)}")
    more = "" if isinstance(found, list) else f", then {found.trials} proposals for {', '.join(found.free)}"
    _say(f"{options.space}: {len(planned)} runs{more}; nothing was started")
    return DONE


def _print_trials(options: argparse.Namespace, source: Any) -> None:
    """The proposals of a search in order, and the best of them."""
    from rich.table import Table

    best = source.best()
    if options.json:
        trials = [{"number": number, "values": values, "score": score} for number, (values, score) in enumerate(source.trials)]
        _print_json(
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
            *(f"{values[key]:.4g}" if isinstance(values[key], float) else str(values[key]) for key in source.search.free),
            f"{score:.4f}",
            style="green" if best and values == best[0] else "",
        )
    _console().print(table)


def _rank(options: argparse.Namespace, name: str, planned: Mapping[str, str]) -> None:
    """Read the finished runs back from MLflow, write the leaderboard files and print the ranked table.

    ``planned``, spec id → the run in words, are those that the caller knows of besides the store's.
    """
    from backstop.platform import leaderboard as boards
    from backstop.platform import report, tracking

    store = tracking.store(Path(options.store))
    runs = tracking.read(store, name)
    _say_interrupted(tracking.interrupted(store, Path(options.store), name))
    if not runs:
        raise BadInput(f"experiment {name!r} has no finished run to rank")
    successful = [run.id for run in runs if "final/attack_success_rate" in run.metrics]
    runs = tracking.curves(store, runs, successful, ["round/attack_success_rate"])
    expected = {**tracking.planned(store, name), **planned}
    document = boards.build(runs, name, mix=options.mix_fingerprints, planned=expected)
    out = Path(options.out) if options.out else Path(options.store) / "leaderboards" / name
    files = bool(options.out) or not tracking.read_only(store)
    if files:
        boards.write(document, runs, out)
        report.write(document, runs, store, out)
    if options.json:
        _print_json(document)
    else:
        console = _console()
        console.print(boards.table(document, console.width))
    if not files:
        _say("the store cannot be written, so the leaderboard's files were not; --out DIR writes them elsewhere")
        return
    _say("wrote " + ", ".join(str(out / f"leaderboard.{suffix}") for suffix in ("json", "csv", "md", "html")))


def leaderboard(options: argparse.Namespace) -> int:
    """``backstop leaderboard``: rank what is in MLflow."""
    from backstop.platform import tracking

    tracking.check_name(options.experiment)
    _readable_store(options)
    _rank(options, options.experiment, {})
    return DONE


def verify(options: argparse.Namespace) -> int:
    """``backstop verify``: is every figure of the file what its runs say, and are the runs what their specs give?"""
    from backstop.platform import federation, finals, origin, specs
    from backstop.platform import leaderboard as boards
    from backstop.platform.experiment import run as run_spec

    document = boards.load(Path(options.file))
    wrong = boards.differences(document, boards.recompute(document))
    folder = federation.data_folder(options.data_dir)
    here = federation.fingerprint(federation.device(options.device))
    if here != document["fingerprint"]:
        _say(f"note: the file was made with {document['fingerprint']}; this is {here}; digits may differ")
    for entry in boards.sample(document, options.sample, wrong):
        spec = specs.from_json(entry["spec"])
        label = f"run {entry['id'][:12]} ({specs.title(spec)}, seed {spec.seed})"
        if spec.id != entry["id"]:
            wrong.append(f"{label}: the spec's id is {spec.id[:12]}, so the spec was changed or this is another version of Backstop")
            continue
        changed = origin.other_data(entry.get("data", ""), spec.dataset, folder)
        if changed:
            wrong.append(f"{label}: {changed}; it was not run again")
            _say(f"{label}: other data")
            continue
        again = finals.final(list(run_spec(spec, folder=folder, device=options.device)))
        off = [
            f"{label} {key}: file {entry['metrics'].get(key)!r}, again {again.get(key)!r}"
            for key in sorted({*again, *entry["metrics"]})
            if entry["metrics"].get(key) != again.get(key)
        ]
        wrong += off
        if off:
            made = origin.Origin(document["fingerprint"], code=document.get("code", {}))
            now = origin.Origin(here, code=origin.code(spec))
            wrong.append(f"{label}: {_blame(made, now, bool(entry.get('data')))}")
        _say(f"{label}: {'differs' if off else 'agrees'}")
    for line in wrong:
        print(line)
    print(f"{options.file}: {'DIFFERS' if wrong else 'agrees'}")
    return FAILED if wrong else DONE


def _blame(made: Any, now: Any, same_data: bool) -> str:
    """What may have changed the figures of a run that was done again."""
    data = "the data are the same" if same_data else "the file does not say which data were read"
    code = sorted(name for name, digest in now.code.items() if made.code.get(name, digest) != digest)
    reasons = [f"the code of {', '.join(code)} has changed"] if code else []
    if made.fingerprint != now.fingerprint:
        reasons.append(f"it was made with {made.fingerprint}, this is {now.fingerprint}")
    rest = "so are its plug-ins and versions; the platform's code or the figures were changed"
    return f"{data}; {' and '.join(reasons) or rest}"


def _facts(group: str, name: str) -> dict[str, Any]:
    """A plug-in as one plain object; a broken file is listed with its error."""
    from backstop.platform import plugins

    try:
        plugin = plugins.find(group, name)
    except BadInput as error:
        return {"name": name, "group": group, "error": str(error)}
    parameters = [
        {"name": item.name, "default": item.default, "allowed": item.allowed, "text": item.text} for item in plugin.parameters.values()
    ]
    facts = {
        key.lower(): list(fact) if isinstance(fact, tuple) else fact
        for key, fact in plugin.facts.items()
        if key in ("KINDS", "KNOWS", "STRENGTH", "TRIGGER")
    }
    if group == "attacks":
        facts["kind"] = "trigger" if plugin.facts["TRIGGER"] else "untargeted" if plugin.facts.get("UNTARGETED") else "update"
    if group == "defenses":
        facts["needs"] = plugins.needs([name])
        facts["takes"] = plugins.TAKES[plugin.facts.get("TAKES", "rows")]
        facts["gives"] = plugins.GIVES[plugin.facts.get("GIVES", "rows")]
    return {
        "name": name,
        "group": group,
        "summary": plugin.summary,
        "version": plugin.version,
        "source": plugin.source,
        "parameters": parameters,
        **facts,
    }


def _asks(item: Mapping[str, Any]) -> str:
    """What a plug-in needs or knows, in words."""
    from backstop.platform import plugins

    if item.get("needs"):
        return f"needs {', '.join(item['needs'])}"
    return f"{item['kind']}, knows {plugins.KNOWS[item['knows']]}" if "knows" in item else ""


def list_(options: argparse.Namespace) -> int:
    """``backstop list``: the plug-ins with a line each."""
    from rich.table import Table

    from backstop.platform import plugins

    groups = [options.group.replace("-", "_")] if options.group else list(plugins.PACKAGES)
    found = [_facts(group, name) for group in groups for name in plugins.names(group)]
    if options.json:
        _print_json(found)
        return DONE
    for group in groups:
        table = Table(title=group.replace("_", " "), title_justify="left", title_style="bold", box=None, show_header=False, pad_edge=False)
        table.add_column(no_wrap=True, style="cyan")
        table.add_column()
        table.add_column(style="dim")
        for item in found:
            if item["group"] == group:
                summary = (item.get("summary") or item["error"]).removeprefix(f"{item['name'].replace('_', ' ').capitalize()}: ")
                table.add_row(item["name"], summary, _asks(item))
        _console().print(table)
    return DONE


def show(options: argparse.Namespace) -> int:
    """``backstop show``: the data sheet and the parameters of a plug-in."""
    from rich.table import Table

    from backstop.platform import plugins

    wanted = options.name.replace("-", "_")
    group = plugins.owner(wanted)
    if group is None:
        known = [name for group in plugins.PACKAGES for name in plugins.names(group)]
        raise BadInput(f"unknown plug-in {options.name!r}; {nearest(wanted, known)}")
    facts, plugin = _facts(group, wanted), plugins.find(group, wanted)
    if options.json:
        _print_json({**facts, "sheet": plugin.sheet})
        return DONE
    console = _console()
    console.print(f"{plugins.SINGULAR[group]} {wanted}, version {plugin.version}", style="bold", highlight=False)
    console.print(plugin.sheet, markup=False, highlight=False, soft_wrap=True)
    for key in ("kinds", "knows", "needs", "takes", "gives", "strength"):
        if facts.get(key):
            given = facts[key]
            console.print(f"\n{key}: {', '.join(given) if isinstance(given, list) else given}", markup=False, highlight=False, end="")
    console.print()
    if facts["parameters"]:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("parameter", "default", "allowed", "meaning"):
            table.add_column(name)
        for item in facts["parameters"]:
            table.add_row(item["name"], str(item["default"]), item["allowed"].replace("[", "\\["), item["text"])
        console.print(table)
    return DONE


def data(options: argparse.Namespace) -> int:
    """``backstop data``: for every dataset what is there, what is missing and how to get it; for one that is there also what is read."""
    from backstop.platform import federation, inventory, plugins, readings, specs
    from backstop.platform.contract import Part

    folder = federation.data_folder(options.data_dir)
    if options.name:
        named = [specs.part(options.name)]
        specs.complete(named[0], "datasets")
    else:
        named = list(map(Part, plugins.names("datasets")))
    found = [inventory.look(part, folder) for part in named]
    if options.download:
        for part, item in zip(named, found, strict=True):
            if options.name or (item["can_download"] and not item["usable"]):  # without a name: what can be fetched
                inventory.download(part, folder)
        found = [inventory.look(part, folder) for part in named]
    whole = inventory.read(named[0], folder) if options.name and found[0]["usable"] else None
    if whole is not None:
        found[0] = {**found[0], "reading": readings.document(whole)}
    if options.json:
        _print_json(found)
        return DONE
    width = max(_console().width, 60)
    for line in inventory.sheet(found[0], folder, width) if options.name else inventory.overview(found, folder, width):
        print(line)
    for line in () if whole is None else readings.sheet(whole):
        print(f"    {line}")
    return DONE


def ui(options: argparse.Namespace) -> int:
    """``backstop ui``: MLflow's own UI on the store in use."""
    from backstop.platform import tracking

    store = _readable_store(options)
    if not tracking.is_new(store):
        _say_interrupted(tracking.interrupted(store, Path(options.store)))
    return tracking.ui(store, options.port)


if __name__ == "__main__":
    sys.exit(main())
