"""``backstop leaderboard`` and ``backstop verify``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backstop.platform.commands.output import (
    DONE,
    FAILED,
    open_console,
    print_json,
    readable_store,
    say,
    say_interrupted,
)


def write_board(options: argparse.Namespace, name: str, planned: Mapping[str, str]) -> None:
    """Read the finished runs back from MLflow, write the leaderboard files and print the ranked
    table.

    ``planned``, spec id → the run in words, are those that the caller knows of besides the store's.
    """
    from backstop.platform.results import page
    from backstop.platform.results.boards import rank_runs
    from backstop.platform.results.files import write_leaderboard
    from backstop.platform.results.runs import read_runs
    from backstop.platform.results.store import locate_store, read_only
    from backstop.platform.results.sweeps import mark_interrupted
    from backstop.platform.results.terminal import terminal_table

    store = locate_store(Path(options.store))
    finished = read_runs(store, name)
    say_interrupted(mark_interrupted(store, Path(options.store), name))
    mix = options.mix_fingerprints
    document, runs = rank_runs(store, name, finished, mix=mix, planned=planned)
    out = Path(options.out) if options.out else Path(options.store) / "leaderboards" / name
    files = bool(options.out) or not read_only(store)
    if files:
        write_leaderboard(document, runs, out)
        page.write(document, runs, store, out)
    if options.json:
        print_json(document)
    else:
        console = open_console()
        console.print(terminal_table(document, console.width))
    if not files:
        say(
            "the store cannot be written, so the leaderboard's files were not; --out DIR writes them elsewhere"
        )
        return
    say(
        "wrote "
        + ", ".join(str(out / f"leaderboard.{suffix}") for suffix in ("json", "csv", "md", "html"))
    )


def leaderboard(options: argparse.Namespace) -> int:
    """``backstop leaderboard``: rank what is in MLflow."""
    from backstop.platform.results.store import check_name

    check_name(options.experiment)
    readable_store(options)
    write_board(options, options.experiment, {})
    return DONE


def verify(options: argparse.Namespace) -> int:
    """``backstop verify``: is every figure of the file what its runs say, and are the runs what
    their specs give?
    """
    from backstop.platform.experiment import run as run_spec
    from backstop.platform.results.document import load_document
    from backstop.platform.results.verification import differences, recompute, sample_runs
    from backstop.platform.rounds import finals, origin
    from backstop.platform.specs.spec import spec_from_json, spec_title
    from backstop.platform.training import loading
    from backstop.platform.training.device import choose_device, fingerprint

    document = load_document(Path(options.file))
    wrong = differences(document, recompute(document))
    folder = loading.data_folder(options.data_dir)
    here = fingerprint(choose_device(options.device))
    if here != document["fingerprint"]:
        say(
            f"note: the file was made with {document['fingerprint']}; this is {here}; digits may differ"
        )
    for entry in sample_runs(document, options.sample, wrong):
        spec = spec_from_json(entry["spec"])
        label = f"run {entry['id'][:12]} ({spec_title(spec)}, seed {spec.seed})"
        if spec.id != entry["id"]:
            wrong.append(
                f"{label}: the spec's id is {spec.id[:12]}, so the spec was changed or this is another version of Backstop"
            )
            continue
        changed = origin.other_data(entry.get("data", ""), spec.dataset, folder)
        if changed:
            wrong.append(f"{label}: {changed}; it was not run again")
            say(f"{label}: other data")
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
        say(f"{label}: {'differs' if off else 'agrees'}")
    for line in wrong:
        print(line)
    print(f"{options.file}: {'DIFFERS' if wrong else 'agrees'}")
    return FAILED if wrong else DONE


def _blame(made: Any, now: Any, same_data: bool) -> str:
    """What may have changed the figures of a run that was done again."""
    data = "the data are the same" if same_data else "the file does not say which data were read"
    code = sorted(
        name for name, digest in now.code.items() if made.code.get(name, digest) != digest
    )
    reasons = [f"the code of {', '.join(code)} has changed"] if code else []
    if made.fingerprint != now.fingerprint:
        reasons.append(f"it was made with {made.fingerprint}, this is {now.fingerprint}")
    rest = "so are its plug-ins and versions; the platform's code or the figures were changed"
    return f"{data}; {' and '.join(reasons) or rest}"
