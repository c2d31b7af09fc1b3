"""``backstop run``: one experiment."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backstop.platform import collector, storage, vault
from backstop.platform.commands.client_figures import client_lines, worst_tenth
from backstop.platform.commands.output import (
    DONE,
    FAILED,
    INTERRUPTED,
    NO_MODELS,
    parse_actors,
    percent_text,
    print_json,
    say,
    say_interrupted,
    usable_store,
)
from backstop.platform.rounds import costs
from backstop.platform.storage import Location

if TYPE_CHECKING:
    from backstop.platform.contract import Record, Spec
    from backstop.platform.results.tracking.runs import Run
    from backstop.platform.sweeps.session import Outcome, Session
    from backstop.platform.sweeps.single import Single


def _requested_spec(options: argparse.Namespace) -> Spec:
    from backstop.platform.rounds.starts import keep_start
    from backstop.platform.specs.change import change_spec
    from backstop.platform.specs.part import parse_value
    from backstop.platform.specs.spec import Spec, scalar_fields, validate

    spec = Spec()
    for key in ("dataset", "model", "attack", "defense", "optimizer"):
        if getattr(options, key) is not None:
            spec = change_spec(spec, key, getattr(options, key))
    for key in scalar_fields():
        if getattr(options, key) is not None:
            option = f"--{key.replace('_', '-')}"
            new = parse_value(getattr(options, key))
            if key == "start" and isinstance(new, str):
                new = keep_start(new)
            spec = change_spec(spec, key, new, option)
    return validate(spec)


def run_spec(options: argparse.Namespace) -> int:
    """``backstop run``: one experiment, printed round by round."""
    from backstop.platform.results.tracking.experiments import check_name
    from backstop.platform.rounds import starts
    from backstop.platform.training import loading
    from backstop.platform.training.device import check_device

    folder = storage.locate(options.store)
    vault.keep_with(folder)
    spec = _requested_spec(options)
    parse_actors(options.client_actors)
    check_device(options.device)
    check_name(options.experiment)
    save_path = starts.check_writable(options.save) if options.save else None
    with _at_work(options, folder) as work:
        data = loading.data_folder(options.data_dir)
        say_interrupted(work.mark_interrupted())
        stored = work.finished(spec, data)
        if stored is None:
            return _train(options, work, spec, data, save_path)
        _show_again(options, work, spec, stored, save_path)
    return DONE


@contextmanager
def _at_work(options: argparse.Namespace, folder: Location) -> Iterator[Single]:
    """Be at work on the store, which another process opens while this one imports PyTorch."""
    from backstop.platform.results.tracking.scribe import hired

    store = usable_store(options)
    with hired(store) as scribe:
        with collector.resting():
            from backstop.platform.sweeps.single import open_single
            from backstop.platform.training.device import choose_device

        choose_device(options.device)
        keeps_models = options.keep_models == "all"
        with open_single(
            store,
            folder,
            options.experiment,
            scribe,
            keeps_models=keeps_models,
        ) as work:
            yield work


def _train(
    options: argparse.Namespace,
    work: Single,
    spec: Spec,
    data: Path,
    save_path: Path | None,
) -> int:
    """Train a spec, or what is left of it, and store the run."""
    from contextlib import closing

    from backstop.platform.experiment import Experiment
    from backstop.platform.training.device import choose_device
    from backstop.platform.training.precision import emulation_note
    from backstop.platform.workers.cluster import hired_clients

    device = choose_device(options.device)
    if note := emulation_note([spec.precision], device):
        say(f"backstop: {note}")
    if spec.warmup:
        say(f"warm-up: {spec.warmup} clean rounds, computed once and cached")
    actors = parse_actors(options.client_actors)
    with (
        hired_clients(options.ray_address, actors, device.type) as clients,
        closing(Experiment(spec, data, options.device, clients)) as experiment,
    ):
        session = work.session(experiment)
        _show_start(session)
        try:
            for record in session.rounds():
                _show_round(record, spec.rounds)
        except KeyboardInterrupt:
            after = f"interrupted after round {experiment.state.round} of {spec.rounds}"
            say(f"backstop: {after}; {_after_interruption(session, session.save())}")
            return INTERRUPTED
        outcome = session.finish()
        _show_outcome(session, outcome, work.store.uri)
        if not work.keeps_models and outcome.stored:
            say(f"backstop: {NO_MODELS}")
        if save_path:
            _save_model(save_path, experiment.model)
    if options.json:
        print_json(_document(session, outcome))
    return DONE if outcome.stored and not outcome.finding else FAILED


def _show_start(session: Session) -> None:
    from backstop.platform.specs.spec import spec_title

    spec = session.spec
    if session.checkpoint.note:
        say(f"backstop: {session.checkpoint.note}")
    say(f"{spec_title(spec)} on {spec.dataset}, {spec.model}; id {spec.id[:12]}")
    if session.records:
        say(f"going on after round {session.experiment.state.round} of {spec.rounds}")


def _show_round(record: Record, total: int) -> None:
    metrics = record.metrics
    times = [value for name, value in record.costs.items() if name.startswith("time/")]
    columns = [
        f"round {record.round + 1:>{len(str(total))}}/{total}",
        f"accuracy {percent_text(metrics.get('round/clean_accuracy')):>7}",
        f"attack success {percent_text(metrics.get('round/attack_success_rate')):>7}",
    ]
    # how often the same inputs get the attacker's label without the trigger, where that is known
    untriggered = metrics.get("round/untriggered_target_rate")
    if untriggered is not None:
        columns.append(f"untriggered {percent_text(untriggered):>7}")
    if worst := worst_tenth(metrics):
        columns.append(worst)
    columns.append(_training(metrics))
    say("  ".join([*columns, f"{sum(times):.2f} s"]))


def _training(metrics: Mapping[str, float]) -> str:
    """How the round's honest clients trained, or that there was none."""
    if "round/train_loss" in metrics:
        return f"train loss {metrics['round/train_loss']:.3f}"
    if "round/answered" not in metrics:
        return "no honest client in the cohort"
    return "no honest client answered" if metrics["round/answered"] else "nobody answered"


def _show_outcome(
    session: Session,
    outcome: Outcome,
    uri: str,
) -> None:
    """What makes a run's figures doubtful, and what went wrong when it was stored."""
    for line in client_lines(outcome.finals):
        say(line)
    lines = _doubts(session.records, outcome.finals)
    if not outcome.stored:
        fate = _where_kept(session, outcome)
        lines.append(f"trained but not stored in {uri}: {outcome.reason}; {fate}")
    if outcome.finding:
        lines.append(outcome.finding)
    for line in lines:
        say(f"backstop: {line}")


def _doubts(records: Sequence[Record], figures: Mapping[str, float]) -> list[str]:
    """What makes a run's final figures doubtful, in sentences."""
    from backstop.platform.rounds import finals

    doubts = [finals.unmoved(records), *finals.doubts(figures)]
    return [doubt for doubt in doubts if doubt]


def _after_interruption(session: Session, lost: str) -> str:
    """What the same command does after an interruption, in words."""
    if not lost:
        return "the same command goes on from there"
    folder = session.checkpoint.path.parent
    return f"it could not be kept in {folder} ({lost}); {_after_loss(session)}"


def _where_kept(session: Session, outcome: Outcome) -> str:
    """What became of a run that could not be stored, in words."""
    folder = session.checkpoint.path.parent
    if outcome.kept:
        return f"it is kept in {folder}; the same command sends it, without training again"
    return f"it could not be kept in {folder} either ({outcome.lost}); {_after_loss(session)}"


def _after_loss(session: Session) -> str:
    """Where a run goes on that could not be kept, in words."""
    if session.checkpoint.exists():
        return "the same command goes on from an earlier round"
    return "the same command trains it again"


def _save_model(path: Path, model: Mapping[str, Any]) -> None:
    from backstop.platform.rounds.starts import save_start

    name = save_start(path, model)
    say(f"wrote {path}; start from it with --start {path} ({name[:14]}…)")


def _show_again(
    options: argparse.Namespace,
    work: Single,
    spec: Spec,
    stored: Run,
    save_path: Path | None,
) -> None:
    """A spec that is finished already: as it was shown before, but nothing is trained or stored."""
    from backstop.platform.results.tracking.runs import model_content, run_records

    records = work.scribe.ask(run_records, work.store, stored)
    _show_finished(options, work, spec, stored)
    for doubt in _doubts(records, stored.metrics):
        say(f"backstop: {doubt}")
    if save_path:
        from safetensors.torch import load

        _save_model(save_path, load(work.scribe.ask(model_content, work.store, stored.run_id)))
    if options.json:
        print_json(_stored_document(stored, records))


def _show_finished(
    options: argparse.Namespace,
    work: Single,
    spec: Spec,
    stored: Run,
) -> None:
    """Where a finished run stands, what it was made of, and its figures."""
    from backstop.platform.rounds.origin import Made
    from backstop.platform.sweeps.checks import code_warning
    from backstop.platform.training.device import choose_device, fingerprint

    say(f"finished already: {work.where(stored)}; {work.another}")
    here = fingerprint(choose_device(options.device))
    if stored.fingerprint != here:
        say(f"backstop: note: it was made with {stored.fingerprint}; this is {here}")
    if warning := code_warning([Made(spec, stored.origin)]):
        say(f"backstop: {warning}")
    accuracy = percent_text(stored.metrics.get("final/clean_accuracy"))
    success = percent_text(stored.metrics.get("final/attack_success_rate"))
    say(f"accuracy {accuracy}  attack success {success}")
    for line in client_lines(stored.metrics):
        say(line)


def _document(session: Session, outcome: Outcome) -> dict[str, Any]:
    """A run that was trained just now as one JSON document."""
    from backstop.platform.specs.spec import spec_to_json

    nothing: dict[str, float] = {}
    return {
        "id": session.spec.id,
        "spec": spec_to_json(session.spec),
        "rounds": _rounds(session.records),
        "final": outcome.finals,
        "timing": reduce(costs.add, (record.costs for record in session.records), nothing),
        "run_id": outcome.run_id,
    }


def _stored_document(stored: Run, records: Sequence[Record]) -> dict[str, Any]:
    """A run that was finished before as one JSON document."""
    return {
        "id": stored.id,
        "spec": dict(stored.spec),
        "rounds": _rounds(records),
        "final": dict(stored.metrics),
        "timing": {costs.phase_name(name): value for name, value in stored.costs.items()},
        "run_id": stored.run_id,
    }


def _rounds(records: Sequence[Record]) -> list[dict[str, Any]]:
    return [{"round": record.round, "metrics": dict(record.metrics)} for record in records]
