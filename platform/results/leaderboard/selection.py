"""Which runs are ranked together, and what is said of those that are not there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from backstop.platform.params import BadInput
from backstop.platform.results.figures.cells import CellKey, Logged, cell_key, seed_of
from backstop.platform.results.figures.names import part_label
from backstop.platform.specs.spec import spec_from_json


def latest_version(ordered: Sequence[Logged]) -> list[Logged]:
    """One run per id, and of runs whose spec is the same under several ids (a plug-in's version was
    raised) today's.
    """
    by_spec: dict[tuple[CellKey, int, bool], dict[str, Logged]] = {}
    for run in ordered:
        spec = (cell_key(run.spec), seed_of(run), bool(run.spec.get("dormant")))
        versions = by_spec.setdefault(spec, {})
        versions.setdefault(run.id, run)
    return [_todays(versions) for versions in by_spec.values()]


def _todays(versions: Mapping[str, Logged]) -> Logged:
    """The run that has the id that its spec has today; the first where none has."""
    first = next(iter(versions.values()))
    if len(versions) == 1:
        return first
    todays_id = spec_from_json(first.spec).id
    return versions.get(todays_id, first)


def on_test_data(runs: Sequence[Logged]) -> list[Logged]:
    """The runs whose figures are of test data: on validation data a search chooses."""
    return [run for run in runs if run.spec.get("evaluate_on", "test") == "test"]


def check_comparable(runs: Sequence[Logged], experiment: str) -> None:
    """Raises BadInput when the runs hold several fingerprints, or read several versions of one
    dataset.
    """
    kinds = fingerprints(runs)
    if len(kinds) > 1:
        raise BadInput(
            f"experiment {experiment!r} holds runs of {len(kinds)} kinds of device or library"
            f" versions ({'; '.join(kinds)}), whose figures are not comparable digit by digit; rank"
            " them together only with --mix-fingerprints"
        )
    mixed = _datasets_in_several_versions(runs)
    if mixed:
        raise BadInput(
            f"experiment {experiment!r} holds runs that read different data under one name:"
            f" {mixed}; delete the runs of one of them, or rank them together with"
            " --mix-fingerprints"
        )


def fingerprints(runs: Sequence[Logged]) -> list[str]:
    """Kinds of device and library versions, each once."""
    return sorted({run.fingerprint for run in runs})


def _datasets_in_several_versions(runs: Sequence[Logged]) -> str:
    """With the digests that were read, in words; empty where there are none."""
    clauses = []
    for name, versions in sorted(_data_digests(runs).items()):
        if len(versions) > 1:
            clauses.append(f"{name} ({', '.join(sorted(versions))})")
    return "; ".join(clauses)


def _data_digests(runs: Sequence[Logged]) -> dict[str, set[str]]:
    """Data in words → the digests under which the runs read them, where these are known."""
    digests: dict[str, set[str]] = {}
    for run in runs:
        for name, digest in _reads(run):
            digests.setdefault(name, set()).add(digest)
    return digests


def _reads(run: Logged) -> Iterator[tuple[str, str]]:
    """What a run read: data in words and their digest, where it is known."""
    data, _, edge_cases = run.data.partition("+")
    name = part_label(run.spec["dataset"])
    if data:
        yield name, data
    if edge_cases:
        yield f"the edge cases of {name}", edge_cases


def code_digests(runs: Sequence[Logged]) -> dict[str, str]:
    """Plug-in → digest of its file; several digests where it was changed between the runs."""
    seen: dict[str, set[str]] = {}
    for run in runs:
        for name, digest in run.code.items():
            seen.setdefault(name, set()).add(digest)
    texts = {}
    for name, digests in sorted(seen.items()):
        texts[name] = " | ".join(sorted(digests))
    return texts


def missing_runs(runs: Sequence[Logged], planned: Mapping[str, str]) -> list[dict[str, str]]:
    """The planned runs, spec id → the run in words, that are not there, ordered by their words."""
    finished = {run.id for run in runs}
    missing = [(words, spec_id) for spec_id, words in planned.items() if spec_id not in finished]
    missing.sort()
    return [{"id": spec_id, "run": words} for words, spec_id in missing]
