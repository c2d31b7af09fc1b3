"""The command line. Results go to stdout, progress and messages to stderr.

Exit codes: 0 done; 1 a run failed or is not stored, or boards or a verification disagree; 2 bad
input, one line on stderr; 130 interrupted, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import errno
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from backstop import __version__
from backstop.platform import collector
from backstop.platform.commands import plain
from backstop.platform.commands.advise import advise
from backstop.platform.commands.board import leaderboard
from backstop.platform.commands.catalogue import data, list_, show, ui
from backstop.platform.commands.check import check_plugin
from backstop.platform.commands.clean import clean
from backstop.platform.commands.compare import compare
from backstop.platform.commands.merge import merge_results
from backstop.platform.commands.output import BAD_INPUT, DONE, FAILED, INTERRUPTED
from backstop.platform.commands.run import run_spec
from backstop.platform.commands.status import status
from backstop.platform.commands.submit import submit
from backstop.platform.commands.sweep import sweep
from backstop.platform.commands.verify import verify
from backstop.platform.contract import BrokenStage
from backstop.platform.params import BadInput, nearest
from backstop.platform.plugins import give_file

LISTED_GROUPS = ("attacks", "defenses", "datasets", "models", "search-spaces")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line and exits with 2."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """A command refuses its own unknown options, since it knows the near ones."""
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown and unknown[0].startswith("-"):
            known = [option for action in self._actions for option in action.option_strings]
            near = nearest(unknown[0].split("=")[0], known)
            self.error(f"unknown option {unknown[0]!r}; {near}")
        if unknown:
            self.error(f"unknown argument {unknown[0]!r}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """One line, with the nearest match where a word is misspelled."""
        if "invalid choice" in message:
            word = message.split("invalid choice: ")[1].split("'")[1]
            choices = [str(choice) for action in self._actions for choice in action.choices or ()]
            message = f"unknown argument {word!r}; {nearest(word, choices)}"
        raise BadInput(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
            signal.signal(signal.SIGHUP, _hang_up)
    for stream in (sys.stdout, sys.stderr):
        plain.settle(stream)
    collector.skip_at_exit()
    if arguments is None:
        # a notebook's, whose module may be missing here: matplotlib could not even be imported
        os.environ.pop("MPLBACKEND", None)
    try:
        options = parser().parse_args(arguments)
        options.arguments = sys.argv[1:] if arguments is None else list(arguments)
        options.alone = arguments is None  # in its process, which is then its own to begin again
        for path in getattr(options, "plugin", None) or ():
            give_file(path)
        code: int = options.command(options)
    except BadInput as error:
        print(f"backstop: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except BrokenStage as error:
        print(f"backstop: the run failed: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(
            "backstop: interrupted; what is finished is kept, the same command goes on from there",
            file=sys.stderr,
        )
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
    # where Ray's own handler comes first, an alarm would abort the process in three seconds
    signal.alarm(0)
    raise KeyboardInterrupt


def _hang_up(*_: object) -> NoReturn:
    """The terminal has gone: an interruption that nobody reads about."""
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    raise KeyboardInterrupt


def parser() -> Parser:
    """All commands and their options."""
    top = Parser(
        prog="backstop",
        description="Every federated backdoor attack against every defense,"
        " as a leaderboard anyone can regenerate.",
    )
    top.add_argument("--version", action="version", version=f"backstop {__version__}")
    commands = top.add_subparsers(
        required=True,
        metavar="COMMAND",
        parser_class=Parser,
    )

    def command(
        name: str,
        function: Callable[[argparse.Namespace], int],
        text: str,
    ) -> Parser:
        added: Parser = commands.add_parser(
            name,
            help=text,
            description=text,
            allow_abbrev=False,
        )
        added.set_defaults(command=function)
        return added

    _run_options(command("run", run_spec, "Run one experiment."))
    _sweep_options(command("sweep", sweep, "Run a search space and rank what comes out."))
    _leaderboard_options(
        command(
            "leaderboard",
            leaderboard,
            "Rank the finished runs of an experiment and write the leaderboard files.",
        )
    )
    _verify_options(
        command("verify", verify, "Run some rows of a leaderboard again and compare every digit.")
    )
    _merge_options(
        command(
            "merge", merge_results, "Join the results of several machines or people and rank them."
        )
    )
    _check_options(
        command(
            "check", check_plugin, "Hold your own plug-in to the laws, and say what is missing."
        )
    )
    _advise_options(
        command(
            "advise",
            advise,
            "Say which defense suits a federation, with reasons, costs, what breaks it, and what"
            " was not tested.",
        )
    )
    _compare_options(
        command(
            "compare",
            compare,
            "Compare two leaderboards, or two defenses of one: how much they differ, how sure that"
            " is, which cells decide, and how many seeds are missing.",
        )
    )
    _submit_options(
        command("submit", submit, "Write an entry: the runs of one attack or defense of a board.")
    )
    _status_options(
        command(
            "status",
            status,
            "Show how far sweeps are, what failed and why, and what runs it again.",
        )
    )
    _list_options(command("list", list_, "List the plug-ins."))
    _show_options(command("show", show, "Show the data sheet of a plug-in."))
    _data_options(
        command("data", data, "Show which datasets are there, what is missing and how to get it.")
    )
    _clean_options(
        command(
            "clean",
            clean,
            "Say what nobody needs any more: checkpoints of finished runs, old warm-ups, Ray's"
            " files of killed sweeps. --yes removes it.",
        )
    )
    _ui_options(command("ui", ui, "Open MLflow's UI on the store in use."))
    return top


def _run_options(to: Parser) -> None:
    _plugin_option(to)
    _spec_options(to)
    _compute_options(to, actors="0")
    to.add_argument(
        "--experiment",
        default="runs",
        metavar="NAME",
        help="MLflow experiment that takes the run (default: runs)",
    )
    to.add_argument(
        "--save",
        type=_path,
        metavar="FILE",
        help="write the final model there as .safetensors, for another run's --start",
    )
    _models_option(to, "none", "all")
    _json_option(to, "one JSON document on stdout")


def _sweep_options(to: Parser) -> None:
    to.add_argument(
        "space", metavar="SPACE", help="a name in search_spaces/, or the path of a .py file"
    )
    _plugin_option(to)
    to.add_argument(
        "--experiment", metavar="NAME", help="MLflow experiment (default: the space's name)"
    )
    _out_option(to)
    to.add_argument(
        "--seeds", metavar="N|A,B,…", help="how many seeds, or which, in place of the space's own"
    )
    to.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change every spec that has it, e.g. rounds=60, optimizer.lr=0.05, attack.strength=1",
    )
    to.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="proposals of a search, in place of its own number",
    )
    _machine_options(to)
    to.add_argument("--dry-run", action="store_true", help="print the plan and start nothing")
    to.add_argument(
        "--plan",
        action="store_true",
        help="measure a few rounds and print what would go where and what it takes; start nothing",
    )
    _models_option(to, "none", "best", "all")
    _mix_option(to)
    _json_option(to, "the leaderboard (or the plan) as one JSON document on stdout")
    _compute_options(to, actors="auto")


def _machine_options(to: Parser) -> None:
    """How much of a machine the trials of a sweep may take."""
    to.add_argument(
        "--max-concurrent",
        type=int,
        metavar="N",
        help="at most N trials at a time (default: as many as fit)",
    )
    to.add_argument(
        "--trial-minutes",
        type=_positive,
        metavar="M",
        help="end a trial that takes longer than M minutes; it counts as failed (default: no"
        " limit)",
    )
    to.add_argument(
        "--trial-memory",
        type=_positive,
        metavar="GIB",
        help="end a trial with a process that has more than so many GiB for itself; it counts as"
        " failed (default: no limit)",
    )


def _leaderboard_options(to: Parser) -> None:
    to.add_argument(
        "--experiment",
        required=True,
        metavar="NAME",
        help="MLflow experiment",
    )
    _plugin_option(to)
    _out_option(to)
    _mix_option(to)
    _json_option(to, "the leaderboard as one JSON document on stdout")
    _store_option(to)


def _verify_options(to: Parser) -> None:
    to.add_argument("file", metavar="FILE", help="a leaderboard.json or its folder")
    to.add_argument(
        "--sample",
        type=int,
        default=3,
        metavar="N",
        help="how many runs to do again (default: 3)",
    )
    _plugin_option(to)
    _device_options(to)


def _merge_options(to: Parser) -> None:
    to.add_argument(
        "boards",
        nargs="+",
        metavar="FILE_OR_FOLDER",
        help="a leaderboard.json, or a folder of results that holds one",
    )
    to.add_argument(
        "--out",
        type=_path,
        required=True,
        metavar="DIR",
        help="folder for the leaderboard files; it may be one of those that are joined",
    )
    to.add_argument(
        "--experiment",
        metavar="NAME",
        help="what the board is called (default: as those that are joined, where they agree)",
    )
    _plugin_option(to)
    _mix_option(to)
    _json_option(to, "the leaderboard as one JSON document on stdout")


def _check_options(to: Parser) -> None:
    to.add_argument(
        "subject",
        metavar="FILE_OR_PACKAGE",
        help="a .py file, a folder of them, an installed package, or the name of a plug-in",
    )


def _advise_options(to: Parser) -> None:
    to.add_argument(
        "file",
        nargs="?",
        metavar="FILE.toml",
        help="what your federation is like; --example prints one to fill in",
    )
    _situation_options(to)
    to.add_argument("--example", action="store_true", help="print a file to fill in, and stop")
    to.add_argument(
        "--read",
        type=_path,
        metavar="BOARD",
        help="read a leaderboard.json or its folder instead of running anything",
    )
    to.add_argument(
        "--out",
        type=_path,
        metavar="DIR",
        help="folder for advice.html, .md and .json, the space and its board (default:"
        " advice/NAME in the store; with --read none)",
    )
    to.add_argument(
        "--seeds", metavar="N|A,B,…", help="how many seeds, or which (default: 3; quick: 2)"
    )
    to.add_argument(
        "--quick", action="store_true", help="a third of the rounds and two seeds, for a first look"
    )
    to.add_argument(
        "--dry-run", action="store_true", help="print what would be tried; start no sweep"
    )
    _machine_options(to)
    _plugin_option(to)
    _json_option(to, "the answer as one JSON document on stdout")
    _compute_options(to, actors="auto")


def _situation_options(to: Parser) -> None:
    """One option for every question of a situation; the data folder has its own."""
    from backstop.platform.advice.situation import questions

    group = to.add_argument_group("the federation, each as in FILE.toml")
    for name, question in questions().items():
        if name == "data_dir":
            to.set_defaults(data_dir=None)
            continue
        default = "none" if question.default is None else question.default
        group.add_argument(
            f"--{name.replace('_', '-')}",
            metavar="VALUE",
            help=f"{question.text}; {question.allowed} (default: {default})".replace("%", "%%"),
        )


def _compare_options(to: Parser) -> None:
    to.add_argument(
        "first",
        metavar="A",
        help="a leaderboard.json or its folder; with --board or --experiment, a defense",
    )
    to.add_argument("second", metavar="B", help="the other one")
    to.add_argument(
        "--board",
        type=_path,
        metavar="FILE",
        help="a leaderboard.json or its folder, whose defenses A and B are",
    )
    to.add_argument(
        "--experiment",
        metavar="NAME",
        help="MLflow experiment whose finished runs are ranked, instead of a file",
    )
    _mix_option(to)
    _json_option(to, "the comparison as one JSON document on stdout")
    _store_option(to)


def _submit_options(to: Parser) -> None:
    to.add_argument("board", metavar="BOARD", help="a folder of results, or a leaderboard.json")
    to.add_argument("chain", metavar="CHAIN", help="the attack or defense, as the board names it")
    to.add_argument(
        "--out",
        type=_path,
        required=True,
        metavar="DIR",
        help="folder for the entry",
    )
    to.add_argument(
        "--reported",
        type=_path,
        metavar="CSV",
        help="what the paper reports: dataset, attack (or defense), metric, reported, where",
    )
    to.add_argument(
        "--partial",
        action="store_true",
        help="write the entry although some reported figures were not run",
    )
    _plugin_option(to)


def _status_options(to: Parser) -> None:
    to.add_argument(
        "--experiment",
        metavar="NAME",
        help="MLflow experiment (default: all that the store has)",
    )
    _json_option(to, "one JSON document on stdout")
    _store_option(to)


def _list_options(to: Parser) -> None:
    to.add_argument(
        "group",
        nargs="?",
        choices=LISTED_GROUPS,
        metavar="GROUP",
        help=" | ".join(LISTED_GROUPS),
    )
    _plugin_option(to)
    _json_option(to, "an array of objects on stdout")


def _show_options(to: Parser) -> None:
    to.add_argument(
        "name",
        metavar="NAME",
        help="an attack, defense, dataset, model or search space, or the path of a file",
    )
    _plugin_option(to)
    _json_option(to, "one JSON document on stdout")


def _data_options(to: Parser) -> None:
    to.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="one dataset, with its parameters where it needs some:"
        " 'table(path=mine.csv, label=class)'",
    )
    to.add_argument(
        "--download",
        action="store_true",
        help="download what is missing, where the dataset can and a network allows it",
    )
    _plugin_option(to)
    for name, text in (
        ("clients", "show how its samples are dealt to so many clients (default: natural ones)"),
        ("alpha", "as in run: a number, none, shards, natural, labels or sizes"),
        ("labels-each", "labels of a client, with --alpha labels"),
        ("size-exponent", "of the power law, with --alpha sizes"),
        ("input-noise", "of the last client's inputs, as in run"),
        ("root-size", "samples that the server holds out first, as in run"),
        ("seed", "of the split, as in run"),
    ):
        to.add_argument(f"--{name}", metavar="VALUE", help=text)
    _json_option(to, "an array of objects on stdout")
    _data_dir_option(to)


def _clean_options(to: Parser) -> None:
    to.add_argument(
        "--yes",
        action="store_true",
        help="remove it (default: say what could go, and remove nothing)",
    )
    to.add_argument("--dry-run", action="store_false", dest="yes", help="the default, spelled out")
    _store_option(to)


def _ui_options(to: Parser) -> None:
    to.add_argument(
        "--port",
        type=int,
        default=5000,
        metavar="N",
        help="port on this machine (default: 5000)",
    )
    _store_option(to)


def _plugin_option(to: Parser) -> None:
    to.add_argument(
        "--plugin",
        action="append",
        default=[],
        type=_path,
        metavar="FILE",
        help="a .py file with a plug-in of your own, which goes by its file's name then; the path"
        " in place of a name does the same",
    )


def _path(text: str) -> str:
    """What an option that is a path was given: an empty one is no path."""
    if not text:
        raise argparse.ArgumentTypeError("the path is empty; name one, or leave the option out")
    return text


def _positive(text: str) -> float:
    """A finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; a number above 0, such as 30")
    return value


def _spec_options(to: Parser) -> None:
    """One option for every field of the Spec, read from its annotations."""
    from backstop.platform.specs.part import NOTHING, chain_text
    from backstop.platform.specs.spec import Spec, scalar_fields

    group = to.add_argument_group("experiment")
    plain = Spec()
    for name, text in (
        ("dataset", "dataset"),
        ("model", "model"),
        ("attack", "attack stages joined by +, several adversaries apart by |"),
        ("defense", "defense stages joined by +"),
        ("optimizer", "of local training, e.g. 'adam(lr=0.001)'"),
    ):
        now = getattr(plain, name)
        default = chain_text(now, name) if name in NOTHING else str(now)
        group.add_argument(
            f"--{name}",
            metavar="TEXT",
            help=f"{text}, e.g. {_example(name)} (default: {default})"
            if name != "optimizer"
            else f"{text} (default: {default})",
        )
    for name, declared in scalar_fields().items():
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


def _json_option(to: Parser, text: str) -> None:
    to.add_argument("--json", action="store_true", help=text)


def _out_option(to: Parser) -> None:
    to.add_argument(
        "--out",
        type=_path,
        metavar="DIR",
        help="folder for the leaderboard files (default: leaderboards/NAME in the store)",
    )


def _models_option(to: Parser, *choices: str) -> None:
    what = {"none": "of no run", "best": "of the runs of the best defense", "all": "of each run"}
    to.add_argument(
        "--keep-models",
        choices=choices,
        default="all",
        help="which finished runs keep their final model: "
        + ", ".join(f"{choice}: {what[choice]}" for choice in choices)
        + " (default: all)",
    )


def _mix_option(to: Parser) -> None:
    to.add_argument(
        "--mix-fingerprints",
        action="store_true",
        help="rank runs of different versions or devices together",
    )


def _device_options(to: Parser) -> None:
    to.add_argument(
        "--device",
        default="auto",
        metavar="KIND",
        help="auto, cpu or cuda (default: auto)",
    )
    _data_dir_option(to)


def _data_dir_option(to: Parser) -> None:
    to.add_argument(
        "--data-dir",
        metavar="DIR",
        help="data folder (default: $BACKSTOP_DATA, else ~/.cache/backstop)",
    )


def _store_option(to: Parser) -> None:
    to.add_argument(
        "--store",
        default="backstop-store",
        metavar="DIR|URL",
        help="folder of runs and checkpoints (default: ./backstop-store); $MLFLOW_TRACKING_URI"
        " moves the runs, as it has to where checkpoints are in s3://bucket/path or gs://…",
    )


def _compute_options(to: Parser, actors: str) -> None:
    to.add_argument(
        "--client-actors",
        default=actors,
        metavar="auto|K",
        help="Ray actors that train the clients of one trial; 0: threads of its own process, on the"
        f" cores that are left over (default: {actors})",
    )
    to.add_argument(
        "--ray-address",
        default=os.environ.get("RAY_ADDRESS") or None,
        metavar="ADDRESS",
        help="Ray cluster (default: $RAY_ADDRESS, else a private local Ray)",
    )
    _device_options(to)
    _store_option(to)


if __name__ == "__main__":
    sys.exit(main())
