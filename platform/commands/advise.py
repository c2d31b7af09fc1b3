"""``backstop advise``: which defense for a federation, with reasons, as a page."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backstop.platform import storage
from backstop.platform.commands.output import (
    DONE,
    FAILED,
    open_console,
    parse_actors,
    print_json,
    say,
)
from backstop.platform.params import BadInput

if TYPE_CHECKING:
    from backstop.platform.advice.answer import Advice
    from backstop.platform.advice.candidates import Candidate, Unusable
    from backstop.platform.advice.situation import Situation
    from backstop.platform.advice.space import AdvisedSpace
    from backstop.platform.advice.trial import TriedFederation

SEEDS, QUICK_SEEDS = "3", "2"


def advise(options: argparse.Namespace) -> int:
    """``backstop advise``: run or read the suitable cells, then answer."""
    from backstop.platform.advice.situation import example, questions, read_situation

    if options.example:
        print(example())
        return DONE
    given: Mapping[str, str | None] = {name: getattr(options, name) for name in questions()}
    if options.file is None and not any(given.values()):
        raise BadInput(
            "advise: nothing is said of your federation; give a FILE.toml (backstop advise"
            " --example prints one) or options, such as --clients 8 --attackers 1"
        )
    said = read_situation(options.file, given)
    if options.read is not None:
        return _show(options, _read(options, said), Path(options.out) if options.out else None)
    return _try(options, said)


def _read(options: argparse.Namespace, said: Situation) -> Advice:
    """The answer of a board that is there."""
    from backstop.platform.advice import nearness
    from backstop.platform.advice.answer import AdviceSource, make_answer
    from backstop.platform.advice.candidates import sort_out
    from backstop.platform.advice.findings import Evidence, verdicts
    from backstop.platform.advice.trial import means_of
    from backstop.platform.commands.compare import named_board
    from backstop.platform.results.leaderboard.published import read_published

    for option in ("seeds", "quick", "dry_run"):
        if getattr(options, option):
            raise BadInput(f"--read runs nothing, so --{option.replace('_', '-')} means nothing")
    named_board(options.read)
    board = read_published(Path(options.read))
    setting = nearness.nearest_setting(board.document, said)
    boards = {item["setting"]: item["rows"] for item in board.document["boards"]}
    evidence = Evidence(
        board.document,
        boards[setting] if setting in boards else board.document["rows"],
        board.runs,
        setting,
    )
    means = means_of(said, nearness.data_kind(said))
    _, unusable = sort_out(means, said.only)
    return make_answer(
        said,
        evidence,
        verdicts(evidence, said, means, unusable),
        AdviceSource(options.read, _command(options), quick=False, read=True),
        near=nearness.aspects(board.document["settings"][setting], said),
    )


def _try(options: argparse.Namespace, said: Situation) -> int:
    """Try the candidates in the federation, or the nearest stand-in, and show what comes out."""
    from backstop.platform.advice.candidates import sort_out
    from backstop.platform.advice.space import ADVISED, write_space
    from backstop.platform.advice.trial import make_trial
    from backstop.platform.commands.sweep import parse_seeds
    from backstop.platform.results.leaderboard.document import write_text
    from backstop.platform.training.device import choose_device
    from backstop.platform.training.loading import data_folder

    parse_actors(options.client_actors)
    device = choose_device(options.device).type
    seeds = parse_seeds(options.seeds or (QUICK_SEEDS if options.quick else SEEDS)) or []
    options.data_dir = options.data_dir or said.data_dir
    say("backstop: one run without an attack, to see how long updates are")
    trial = make_trial(said, data_folder(options.data_dir), device, quick=options.quick)
    usable, unusable = sort_out(trial.means, said.only)
    if not usable:
        raise BadInput(
            "no defense can be used in this situation: "
            + "; ".join(f"{item.name} {item.reason}" for item in unusable[:3])
            + "; …"
        )
    space = write_space(trial, usable, seeds)
    if options.dry_run:
        return _print_plan(trial, usable, unusable, space)
    folder = _folder(options, space)
    file = write_text(folder / f"{ADVISED}.py", space.text)
    code = _sweep(options, space, file)
    answer = _answer(options, said, trial, unusable, folder)
    return max(code, _show(options, answer, folder))


def _folder(options: argparse.Namespace, space: AdvisedSpace) -> Path:
    """Where the answer's files go."""
    if options.out:
        return Path(options.out)
    return storage.local_folder(storage.locate(options.store)) / "advice" / space.experiment


def _sweep(
    options: argparse.Namespace,
    space: AdvisedSpace,
    file: Path,
) -> int:
    """Run the space as any other, its board beside it; the board's table goes to stderr, since the
    answer is what was asked for.
    """
    from backstop.platform.commands.sweep import sweep

    asked: dict[str, object] = {
        "space": str(file),
        "experiment": space.experiment,
        "out": str(file.parent / "board"),
        "seeds": None,
        "set": [],
        "trials": None,
        "plan": False,
        "json": False,
        "keep_models": "none",
        "mix_fingerprints": False,
    }
    with contextlib.redirect_stdout(sys.stderr):
        return sweep(argparse.Namespace(**{**vars(options), **asked}))


def _answer(
    options: argparse.Namespace,
    said: Situation,
    trial: TriedFederation,
    unusable: list[Unusable],
    folder: Path,
) -> Advice:
    """The answer of the board that the sweep has written."""
    from backstop.platform.advice.answer import AdviceSource, make_answer
    from backstop.platform.advice.findings import Evidence, verdicts
    from backstop.platform.results.leaderboard.published import read_published

    board = folder / "board"
    if not (board / "leaderboard.json").is_file():
        raise BadInput(f"there is no leaderboard in {board}, so there is nothing to advise by")
    published = read_published(board)
    evidence = Evidence(published.document, published.document["rows"], published.runs, "")
    return make_answer(
        said,
        evidence,
        verdicts(evidence, said, trial.means, unusable),
        AdviceSource(str(board), _command(options), quick=options.quick, read=False),
        trial=trial,
    )


def _show(
    options: argparse.Namespace,
    answer: Advice,
    folder: Path | None,
) -> int:
    """Print the answer, and write its page where there is a folder for it."""
    from backstop.platform.advice import words
    from backstop.platform.advice.page import advice_page
    from backstop.platform.results.leaderboard.document import encode_document, write_text

    if options.json:
        print_json(answer)
    else:
        open_console().print(words.terminal(answer))
    if folder is not None:
        files = (
            write_text(folder / "advice.html", advice_page(answer)),
            write_text(folder / "advice.md", words.advice_markdown(answer)),
            write_text(folder / "advice.json", encode_document(answer)),
        )
        say(f"wrote {', '.join(map(str, files))}")
    return FAILED if answer["evidence"]["missing"] else DONE


def _print_plan(
    trial: TriedFederation,
    usable: list[Candidate],
    unusable: list[Unusable],
    space: AdvisedSpace,
) -> int:
    """Print what would be tried, and why the others would not."""
    from backstop.platform.advice.candidates import by_reason

    print(space.text, end="")
    for note in trial.notes:
        say(f"note: {note}")
    for reason, items in by_reason(unusable).items():
        say(f"left out: {', '.join(item.name for item in items)}: {reason}")
    say(f"{len(usable)} defenses to try; a run took {trial.seconds:.1f} s; nothing was started")
    return DONE


def _command(options: argparse.Namespace) -> str:
    return shlex.join(["backstop", *options.arguments])
