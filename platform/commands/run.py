"""``backstop run``: one experiment."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

from backstop.platform.commands.output import (
    DONE,
    FAILED,
    INTERRUPTED,
    parse_actors,
    print_json,
    say,
    say_interrupted,
    usable_store,
)
from backstop.platform.commands.sweep import warn_of_code
from backstop.platform.params import BadInput
from backstop.platform.rounds import costs


def _requested_spec(options: argparse.Namespace) -> Any:
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


def run(options: argparse.Namespace) -> int:
    """``backstop run``: one experiment, printed round by round."""
    from contextlib import ExitStack

    from backstop.platform.experiment import Experiment
    from backstop.platform.results import drivers
    from backstop.platform.results.runs import find_run
    from backstop.platform.results.store import check_name
    from backstop.platform.results.sweeps import drivers_home, mark_interrupted
    from backstop.platform.rounds import finals, origin, starts
    from backstop.platform.rounds.checkpoint import Checkpoint
    from backstop.platform.specs.spec import spec_title, spec_to_json
    from backstop.platform.sweeps.underway import Underway
    from backstop.platform.training import loading
    from backstop.platform.training.device import choose_device
    from backstop.platform.workers.actors import OnActors
    from backstop.platform.workers.cluster import local_ray, spread

    spec = _requested_spec(options)
    actors, device = parse_actors(options.client_actors), choose_device(options.device).type
    check_name(options.experiment)
    folder, store = loading.data_folder(options.data_dir), usable_store(options)
    saved = starts.check_writable(options.save) if options.save else None
    place = drivers_home(store, Path(options.store))
    with ExitStack() as stack:
        driver = stack.enter_context(drivers.at_work(place))
        under = Underway(store, options.experiment, driver, place)
        stack.callback(under.release)
        if under.number:
            say_interrupted(mark_interrupted(store, Path(options.store), options.experiment))
        stored = find_run(store, options.experiment, spec)
        if stored is not None:
            return _finished(options, store, spec, stored, folder, saved)
        if spec.warmup:
            say(
                f"the first of those that share it makes the warm-up: {spec.warmup} rounds of clean FedAvg"
            )
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
            raise BadInput(
                f"this run has begun, and {torn}; put the old data back, or remove {checkpoint.path} to begin anew"
            )
        under.begin(experiment, checkpoint)
        if checkpoint.note:
            say(f"backstop: {checkpoint.note}")
        say(f"{spec_title(spec)} on {spec.dataset}, {spec.model}; id {spec.id[:12]}")
        if under.records:
            say(f"going on after round {experiment.state.round} of {spec.rounds}")
        try:
            _train(under)
        except KeyboardInterrupt:
            lost = under.save()
            say(
                f"backstop: interrupted after round {experiment.state.round} of {spec.rounds}; {_from_there(checkpoint, lost)}"
            )
            return INTERRUPTED
        final = finals.final(under.records)
        for doubt in filter(None, [finals.unmoved(under.records), *finals.doubts(final)]):
            say(f"backstop: {doubt}")
        model = experiment.built.net.tensors(experiment.state.params, experiment.state.buffers)
        run_id, finding, reason = _store(under, final, model)
        if reason:
            say(f"backstop: trained but not stored in {store.uri}: {reason}; {_kept(under)}")
        else:
            checkpoint.drop()
        if finding:
            say(f"backstop: {finding}")
        if saved:
            say(
                f"wrote {saved}; start from it with --start {saved} ({starts.save_start(saved, model)[:14]}…)"
            )
    if options.json:
        rounds = [
            {"round": record.round, "metrics": dict(record.metrics)} for record in under.records
        ]
        nothing: dict[str, float] = {}
        timing = reduce(costs.add, (record.costs for record in under.records), nothing)
        print_json(
            {
                "id": spec.id,
                "spec": spec_to_json(spec),
                "rounds": rounds,
                "final": final,
                "timing": timing,
                "run_id": run_id,
            }
        )
    return FAILED if reason or finding else DONE


def _train(under: Any) -> None:
    """All rounds that are left, each printed and kept."""
    from backstop.platform.commands.live import percent

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
            say(
                f"round {record.round + 1:>{len(str(total))}}/{total}"
                f"  accuracy {percent(last.get('round/clean_accuracy')):>7}"
                f"  attack success {percent(last.get('round/attack_success_rate')):>7}"
                f"  {_anyway(last)}train loss {last.get('round/train_loss', math.nan):.3f}  {spent:.2f} s"
            )
        if experiment.state.round < total:
            under.now_and_then()


def _store(
    under: Any, final: Mapping[str, float], model: Mapping[str, Any]
) -> tuple[str | None, str, str]:
    """Store a run: its MLflow id, how a run of the same spec differs from it, and why it was not
    possible.
    """
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


def _finished(
    options: argparse.Namespace,
    store: Any,
    spec: Any,
    stored: Any,
    folder: Path,
    saved: Path | None,
) -> int:
    """A spec that is finished already: where, and its figures. Nothing is trained, nothing is
    written to it.
    """
    from backstop.platform.commands.live import percent
    from backstop.platform.results.runs import run_model, run_rounds
    from backstop.platform.rounds import origin, starts
    from backstop.platform.training.device import choose_device, fingerprint

    where = f"experiment {options.experiment!r} of {store.uri}, MLflow run {stored.run_id}"
    anew = "to run it anew, give it another --experiment"
    changed = origin.other_data(stored.data, spec.dataset, folder)
    if changed:
        raise BadInput(
            f"this spec is finished in {where}, and {changed}; put the old data back; {anew}"
        )
    say(f"finished already: {where}; {anew}")
    here = fingerprint(choose_device(options.device))
    if stored.fingerprint != here:
        say(f"backstop: note: it was made with {stored.fingerprint}; this is {here}")
    warn_of_code([origin.Made(spec, stored.origin)])
    figures = stored.metrics
    say(
        f"accuracy {percent(figures.get('final/clean_accuracy'))}  attack success {percent(figures.get('final/attack_success_rate'))}"
    )
    if saved:
        name = starts.save_start(saved, run_model(store, stored.run_id))
        say(f"wrote {saved}; start from it with --start {saved} ({name[:14]}…)")
    if options.json:
        rounds = [
            {"round": number, "metrics": metrics}
            for number, metrics in run_rounds(store, stored.run_id)
        ]
        timing = {costs.phase_name(name): value for name, value in stored.costs.items()}
        final = dict(figures)
        document = {
            "id": spec.id,
            "spec": dict(stored.spec),
            "rounds": rounds,
            "final": final,
            "timing": timing,
        }
        print_json({**document, "run_id": stored.run_id})
    return DONE


def _anyway(metrics: Mapping[str, float]) -> str:
    """How often the same inputs get the wanted label without the trigger, where that is known."""
    from backstop.platform.commands.live import percent

    rate = metrics.get("round/untriggered_target_rate")
    return "" if rate is None else f"untriggered {percent(rate):>7}  "
