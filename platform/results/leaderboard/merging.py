"""Boards of several machines or people as one: all of their runs, ranked again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from backstop.platform.params import BadInput
from backstop.platform.results.figures.cells import json_text
from backstop.platform.results.figures.names import Json, chain_label
from backstop.platform.results.leaderboard.boards import Ranked
from backstop.platform.results.leaderboard.document import Document
from backstop.platform.results.leaderboard.published import Published
from backstop.platform.results.leaderboard.ranking import build_document
from backstop.platform.results.leaderboard.verification import differences

APART = " | "  # between the values of what several runs do not have in common


def disagreements(boards: Sequence[Published]) -> list[str]:
    """A line for everything in which two boards differ on a run that both hold: the same spec gives
    the same bytes, so one of them is not what its spec gives.
    """
    return list(_each_disagreement(boards))


def _each_disagreement(boards: Sequence[Published]) -> Iterator[str]:
    first: dict[str, tuple[str, Json]] = {}
    for board in boards:
        for run in board.document["runs"]:
            name, other = first.setdefault(run["id"], (board.name, run))
            if json_text(run) != json_text(other):
                for difference in differences(other, run, (name, board.name)):
                    yield f"{_run_words(run)}: {difference}"


def _run_words(run: Json) -> str:
    """A run of a document for people."""
    spec = run["spec"]
    attack = chain_label(spec["attack"], "attack")
    defense = chain_label(spec["defense"], "defense")
    return f"run {run['id'][:12]} ({attack} × {defense}, seed {spec['seed']})"


def merge_boards(
    boards: Sequence[Published],
    *,
    experiment: str | None = None,
    mix: bool = False,
) -> Ranked:
    """The board of all runs, as it would be had one store held them. ``experiment`` is its name,
    that of the boards unless given.

    Raises BadInput where the boards disagree on a run, where they have several names and none is
    given, and for what :func:`build_document` refuses.
    """
    if lines := disagreements(boards):
        raise BadInput(f"the boards disagree in {len(lines)} places, first in {lines[0]}")
    name = experiment or _common_name(boards)
    runs = {run.id: run for board in reversed(boards) for run in board.runs}
    documents = [board.document for board in boards]
    document = build_document(
        runs.values(),
        name,
        mix=mix,
        planned=_missing(documents),
        searched=_searched(documents),
    )
    kinds = {kind for run in runs.values() for kind in run.fingerprint.split(APART)}
    document["fingerprint"] = APART.join(sorted(kinds))
    document["code"] = _code(documents)
    return Ranked(document, [runs[item["id"]] for item in document["runs"]])


def _common_name(boards: Iterable[Published]) -> str:
    names = sorted({board.document["experiment"] for board in boards})
    if len(names) > 1:
        raise BadInput(
            f"the boards are of {len(names)} experiments ({', '.join(names)});"
            " --experiment NAME says what theirs together is called"
        )
    return str(names[0])


def _missing(documents: Iterable[Document]) -> dict[str, str]:
    """Spec id → the run in words, of all that some board lacks."""
    return {item["id"]: item["run"] for document in documents for item in document["missing_runs"]}


def _searched(documents: Iterable[Document]) -> list[Json]:
    """What searches have chosen, each once."""
    listed = [item for document in documents for item in document.get("searched", ())]
    return list({json_text(item): item for item in listed}.values())


def _code(documents: Iterable[Document]) -> Mapping[str, str]:
    """Plug-in → the digest of its file, or the digests where it was changed between runs."""
    digests: dict[str, set[str]] = {}
    for document in documents:
        for name, text in document.get("code", {}).items():
            digests.setdefault(name, set()).update(text.split(APART))
    return {name: APART.join(sorted(digests[name])) for name in sorted(digests)}
