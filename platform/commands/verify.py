"""``backstop verify``: is every figure of a leaderboard what its runs say, and are the runs what
their specs give?
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from backstop.platform.commands.output import DONE, FAILED, say

if TYPE_CHECKING:
    from backstop.platform.rounds.origin import Origin
    from backstop.platform.specs.spec import Spec


# differences in what loose files say of themselves, which nobody knows without them
SAID_BY_FILES = re.compile(r"[.\] ](?:needs|knows)[:\[]")


class Rerun(NamedTuple):
    """How it went to do a run again, in a word, and a line for everything that is wrong."""

    outcome: str
    complaints: list[str]


def verify(options: argparse.Namespace) -> int:
    """``backstop verify``: compute the file again, run some of its specs again, compare."""
    from backstop.platform.results.leaderboard.reading import read_document
    from backstop.platform.results.leaderboard.verification import sample_runs
    from backstop.platform.rounds.origin import Origin
    from backstop.platform.training.device import choose_device, fingerprint

    document = read_document(Path(options.file))
    complaints = _wrong_figures(document)
    made = Origin(document["fingerprint"], code=document.get("code", {}))
    here = fingerprint(choose_device(options.device))
    if here != made.fingerprint:
        say(f"note: the file was made with {made.fingerprint}; this is {here}; digits may differ")
    for entry in sample_runs(document, options.sample, complaints):
        label = _label(entry)
        rerun = _run_again(entry, made, here, options)
        complaints += [f"{label}{complaint}" for complaint in rerun.complaints]
        say(f"{label}: {rerun.outcome}")
    for line in complaints:
        print(line)
    print(f"{options.file}: {'DIFFERS' if complaints else 'agrees'}")
    return FAILED if complaints else DONE


def _wrong_figures(document: Mapping[str, Any]) -> list[str]:
    """A line for each figure that the document's runs do not give. Tables of the first schema
    followed another rule: only the runs of such a file can be held against anything.
    """
    from backstop.platform.results.leaderboard.document import SCHEMA
    from backstop.platform.results.leaderboard.sheets import absence_line
    from backstop.platform.results.leaderboard.verification import differences, recompute

    again = recompute(document)
    absent = absence_line(run["spec"] for run in document["runs"])
    if absent:
        say(f"note: {absent}, nor compared")
    if document["schema"] == SCHEMA:
        wrong = differences(document, again)
        return [line for line in wrong if not absent or not SAID_BY_FILES.search(line)]
    schema = document["schema"]
    say(f"note: the file has schema {schema}: its runs are checked, not its tables")
    return []


def _label(entry: Mapping[str, Any]) -> str:
    """A run of the document in words."""
    from backstop.platform.specs.spec import spec_from_json, spec_title

    spec = spec_from_json(entry["spec"])
    return f"run {entry['id'][:12]} ({spec_title(spec)}, seed {spec.seed})"


def _run_again(
    entry: Mapping[str, Any],
    made: Origin,
    here: str,
    options: argparse.Namespace,
) -> Rerun:
    """Do a run of the document again, where it is still the same experiment."""
    from backstop.platform.experiment import run
    from backstop.platform.rounds import finals, origin
    from backstop.platform.specs.spec import spec_from_json
    from backstop.platform.training.loading import data_folder

    spec = spec_from_json(entry["spec"])
    folder = data_folder(options.data_dir)
    refusal = _refusal(entry, spec, folder)
    if refusal is not None:
        return refusal
    records = list(run(spec, folder=folder, device=options.device))
    again = finals.final(records)
    different = _different_metrics(entry["metrics"], again)
    if not different:
        return Rerun("agrees", [])
    now = origin.Origin(here, code=origin.code(spec))
    cause = _cause(made, now, data_is_known=bool(entry.get("data")))
    return Rerun("differs", [*different, f": {cause}"])


def _refusal(
    entry: Mapping[str, Any],
    spec: Spec,
    folder: Path,
) -> Rerun | None:
    """Why a run of the document is not done again: it would be another experiment."""
    from backstop.platform import loose
    from backstop.platform.rounds.origin import other_data
    from backstop.platform.specs.spec import loose_names

    absent = [name for name in loose_names(spec) if not loose.is_here(name)]
    if absent:
        return Rerun(f"not run again, as {' and '.join(absent)} is not here", [])
    if spec.id != entry["id"]:
        cause = "the spec was changed or this is another version of Backstop"
        return Rerun("another id", [f": the spec's id is {spec.id[:12]}, so {cause}"])
    difference = other_data(entry.get("data", ""), spec.dataset, folder)
    if difference:
        return Rerun("other data", [f": {difference}; it was not run again"])
    return None


def _different_metrics(stored: Mapping[str, float], again: Mapping[str, float]) -> list[str]:
    from backstop.platform.rounds.finals import comparable

    return [
        f" {name}: file {stored.get(name)!r}, again {again.get(name)!r}"
        for name in comparable(stored, again)
        if stored.get(name) != again.get(name)
    ]


def _cause(
    made: Origin,
    now: Origin,
    *,
    data_is_known: bool,
) -> str:
    """What may have changed the figures of a run that was done again."""
    data = "the file does not say which data were read"
    if data_is_known:
        data = "the data are the same"
    changed = _changed_plugins(made.code, now.code)
    reasons = [f"the code of {', '.join(changed)} has changed"] if changed else []
    if made.fingerprint != now.fingerprint:
        reasons.append(f"it was made with {made.fingerprint}, this is {now.fingerprint}")
    rest = "so are its plug-ins and versions; the platform's code or the figures were changed"
    return f"{data}; {' and '.join(reasons) or rest}"


def _changed_plugins(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The plug-ins whose digests differ; one that was not known before has not changed."""
    changed = []
    for name, digest in now.items():
        if before.get(name, digest) != digest:
            changed.append(name)
    return sorted(changed)
