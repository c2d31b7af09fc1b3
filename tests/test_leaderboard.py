"""The ranking against numbers worked out by hand, its order, its bytes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from backstop.platform.params import BadInput
from backstop.platform.results import ranking
from backstop.platform.results.columns import ranked_rows
from backstop.platform.results.document import encode_document, load_document
from backstop.platform.results.files import write_leaderboard
from backstop.platform.results.markdown import markdown
from backstop.platform.results.notes import footnotes
from backstop.platform.results.runs import Run
from backstop.platform.results.terminal import terminal_table
from backstop.platform.results.verification import differences, recompute, sample_runs
from tests.boards import BASE, run, runs

A, B = "badnets(size=3)", "label_flip(target=0)"


def figures(accuracy: float, success: float | None = None, **others: float) -> dict[str, float]:
    return {
        "clean_accuracy": accuracy,
        **({} if success is None else {"attack_success_rate": success}),
        **others,
    }


def hand() -> list[Run]:
    """Two attacks, three defenses, two seeds, in eighths and sixteenths: every mean is exact."""
    table = {
        # (attack, defense): (accuracy, success) for seeds 0 and 1
        (A, "fedavg"): [(0.875, 1.0), (1.0, 0.875)],  # means 0.9375, 0.9375
        (B, "fedavg"): [(0.875, 0.5), (0.875, 0.5)],
        (A, "median"): [(0.75, 0.25), (0.75, 0.125)],  # means 0.75, 0.1875
        (B, "median"): [(0.75, 0.75), (0.75, 0.75)],  # the attack succeeds more
        (A, "krum(f=1)"): [(1.0, 0.5), (1.0, 0.5)],  # accuracy is higher
        (B, "krum(f=1)"): [(0.875, 0.25), (0.875, 0.25)],
    }
    attacked = [
        run(*cell, seed, figures(*pair))
        for cell, pairs in table.items()
        for seed, pair in enumerate(pairs)
    ]
    clean = [run("none", "fedavg", seed, figures(value)) for seed, value in ((0, 1.0), (1, 0.75))]
    return [*attacked, *clean]


def rows(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["defense"]: row for row in document["rows"]}


def test_numbers_worked_out_by_hand() -> None:
    document = ranking.build_document(hand(), "hand")
    assert [(row["rank"], row["defense"]) for row in document["rows"]] == [
        (1, "krum(f=1)"),
        (2, "median"),
        (3, "fedavg"),
    ]
    krum, median, fedavg = document["rows"]
    # krum: A saves 0.4375 at no cost → 0.71875; B saves 0.25 → 0.625
    assert krum["der"] == (0.71875 + 0.625) / 2
    assert (krum["accuracy_cost"], krum["asr_reduction"]) == (
        (-0.0625 + 0.0) / 2,
        (0.4375 + 0.25) / 2,
    )
    # median: A (0.75 - 0.1875 + 1) / 2; B saves nothing and costs 0.125: (0 - 0.125 + 1) / 2
    assert median["der"] == (0.78125 + 0.4375) / 2
    assert median["clean_accuracy"] == {"mean": 0.75, "low": 0.75, "high": 0.75}
    assert median["attack_success_rate"]["mean"] == (0.1875 + 0.75) / 2
    assert (median["worst_attack"], median["worst_attack_success_rate"]) == (B, 0.75)
    assert (fedavg["der"], fedavg["accuracy_cost"], fedavg["asr_reduction"]) == (0.5, 0.0, 0.0)
    assert (fedavg["worst_attack"], fedavg["worst_attack_success_rate"]) == (A, 0.9375)
    assert fedavg["no_attack_accuracy"]["mean"] == 0.875
    assert median["no_attack_accuracy"] is None
    assert fedavg["robust_accuracy"] is None
    assert (median["attacks"], median["seeds"], median["missing"], median["diverged"]) == (
        [A, B],
        [0, 1],
        0,
        0,
    )
    assert {"schema": 1, "experiment": "hand", "fingerprint": "cpu"}.items() <= document.items()
    (cell,) = [
        item for item in document["cells"] if (item["attack"], item["defense"]) == (A, "median")
    ]
    assert (cell["dataset"], cell["model"], cell["seeds"], cell["der"]) == (
        "digits",
        "mlp",
        [0, 1],
        0.78125,
    )
    assert cell["attack_success_rate"]["mean"] == 0.1875


def test_intervals_are_paired_over_seeds() -> None:
    """A cost that is the same for every seed has no spread, however much the seeds differ."""
    noisy = {0: 0.5, 1: 0.75, 2: 1.0, 3: 0.625}
    given = [run(A, "fedavg", seed, figures(value, 1.0)) for seed, value in noisy.items()]
    given += [run(A, "median", seed, figures(value - 0.125, 0.5)) for seed, value in noisy.items()]
    median = rows(ranking.build_document(given, "x"))["median"]
    assert median["intervals"]["accuracy_cost"] == {"mean": 0.125, "low": 0.125, "high": 0.125}
    interval = median["clean_accuracy"]
    assert (
        min(noisy.values()) - 0.125
        <= interval["low"]
        < interval["mean"]
        < interval["high"]
        <= max(noisy.values()) - 0.125
    )
    # the means of 4 draws with replacement of these values: quantiles by all 256 of them
    values = sorted(value - 0.125 for value in noisy.values())
    exact = sorted(
        (a + b + c + d) / 4 for a in values for b in values for c in values for d in values
    )
    assert interval["low"] == pytest.approx(exact[math.floor(0.025 * 255)], abs=0.03)
    assert interval["high"] == pytest.approx(exact[math.ceil(0.975 * 255)], abs=0.03)


def test_only_seeds_that_both_have_are_compared() -> None:
    given = [
        run(A, "fedavg", 0, figures(1.0, 1.0)),
        run(A, "fedavg", 1, figures(0.5, 0.5)),
        run(A, "median", 1, figures(0.25, 0.25)),
    ]
    median = rows(ranking.build_document(given, "x"))["median"]
    assert (median["accuracy_cost"], median["asr_reduction"]) == (0.25, 0.25)
    alone = rows(ranking.build_document([given[0], run(A, "krum", 7, figures(0.5, 0.5))], "x"))[
        "krum"
    ]
    assert (
        alone["accuracy_cost"],
        alone["asr_reduction"],
        alone["der"],
        alone["intervals"]["der"],
    ) == (None, None, None, None)


def test_ties_are_broken_by_the_worst_attack_and_then_by_name() -> None:
    base = [run(attack, "fedavg", 0, figures(1.0, 1.0)) for attack in (A, B)]
    even = [
        run(attack, name, 0, figures(1.0, 0.5))
        for name in ("zebra", "aardvark")
        for attack in (A, B)
    ]
    uneven = [run(A, "bear", 0, figures(1.0, 0.25)), run(B, "bear", 0, figures(1.0, 0.75))]
    unknown = [run(A, "cat", 0, figures(1.0))]
    document = ranking.build_document([*uneven, *even, *base, *unknown], "x")
    assert [(row["rank"], row["defense"], row["der"]) for row in document["rows"]] == [
        (1, "aardvark", 0.75),
        (2, "zebra", 0.75),
        (3, "bear", 0.75),
        (4, "fedavg", 0.5),
        (5, "cat", None),
    ]
    assert rows(document)["cat"]["missing"] == 1


def test_shuffled_runs_of_another_store_give_the_same_bytes() -> None:
    given = runs()
    other = [
        item._replace(run_id="elsewhere", costs={"time/total_train_s": 99.0}) for item in given
    ]
    orders = [
        given,
        given[::-1],
        sorted(given, key=lambda item: item.id[-5:]),
        other,
        given + other,
    ]
    assert len({encode_document(ranking.build_document(order, "x")) for order in orders}) == 1


def test_the_file_is_json_without_clock_or_place() -> None:
    document = ranking.build_document(runs(), "x")
    text = encode_document(document)
    assert json.loads(text) == document
    assert not any(word in text for word in ("mlflow-", "time/", "NaN", "Infinity"))
    assert text.endswith("}\n")


def test_settings_are_not_mixed() -> None:
    longer = BASE.replace(rounds=40)
    given = [
        run(A, "fedavg", 0, figures(1.0, 1.0)),
        run(A, "median", 0, figures(0.5, 0.5)),
        run(A, "fedavg", 0, figures(0.75, 0.5), longer),
        run(A, "median", 0, figures(0.75, 0.25), longer),
    ]
    document = ranking.build_document(given, "x")
    assert len(document["cells"]) == 4
    assert sorted(setting["rounds"] for setting in document["settings"].values()) == [20, 40]
    assert {cell["setting"] for cell in document["cells"]} == set(document["settings"])
    median = rows(document)["median"]
    assert (median["accuracy_cost"], median["asr_reduction"]) == ((0.5 + 0.0) / 2, (0.5 + 0.25) / 2)


def test_diverged_runs_count_with_their_worst() -> None:
    given = [run(A, "fedavg", seed, figures(1.0, 1.0)) for seed in (0, 1)]
    given += [run(A, "median", 0, figures(0.5, 0.5)), run(A, "median", 1, {"diverged": 1.0})]
    median = rows(ranking.build_document(given, "x"))["median"]
    assert (
        median["clean_accuracy"]["mean"],
        median["attack_success_rate"]["mean"],
        median["diverged"],
    ) == (0.25, 0.75, 1)
    kept = [*given[:-1], run(A, "median", 1, figures(0.25, 0.25, diverged=1.0))]
    assert rows(ranking.build_document(kept, "x"))["median"]["clean_accuracy"]["mean"] == 0.375
    untargeted = [run(B, "fedavg", 0, figures(1.0)), run(B, "median", 0, {"diverged": 1.0})]
    assert rows(ranking.build_document(untargeted, "x"))["median"]["attack_success_rate"] is None


def test_numbers_that_are_none_do_not_reach_the_file() -> None:
    document = ranking.build_document([run(A, "fedavg", 0, figures(1.0, math.nan))], "x")
    assert rows(document)["fedavg"]["attack_success_rate"] is None
    assert document["runs"][0]["metrics"] == {"final/clean_accuracy": 1.0, "final/diverged": 0.0}
    assert json.loads(encode_document(document), parse_constant=pytest.fail) == document


def test_fingerprints_are_not_mixed_unless_told() -> None:
    given = [
        run(A, "fedavg", 0, figures(1.0, 1.0)),
        run(A, "median", 0, figures(1.0, 0.5), fingerprint="gpu"),
    ]
    with pytest.raises(BadInput, match=r"2 kinds .*cpu; gpu.*--mix-fingerprints"):
        ranking.build_document(given, "x")
    assert ranking.build_document(given, "x", mix=True)["fingerprint"] == "cpu | gpu"
    with pytest.raises(BadInput, match="no finished run"):
        ranking.build_document([], "x")


def test_a_changed_file_is_found_out() -> None:
    document = ranking.build_document(hand(), "hand")
    again = json.loads(encode_document(document))
    assert differences(again, recompute(again)) == []
    again["cells"][2]["clean_accuracy"]["mean"] += 0.25
    again["rows"][0]["der"] = 0.9
    where, changed = again["cells"][2], again["cells"][2]["clean_accuracy"]["mean"]
    assert changed - 0.25 == document["cells"][2]["clean_accuracy"]["mean"]
    cell = f"cells[2] {where['attack']} × {where['defense']}"
    assert differences(again, recompute(again)) == [
        f"rows[0] krum(f=1) der: file 0.9, recomputed {document['rows'][0]['der']}",
        f"{cell} clean_accuracy mean: file {changed}, recomputed {changed - 0.25}",
    ]
    del again["runs"][-1]
    assert any("runs: file" in line or "cells" in line for line in differences(again, document))
    with pytest.raises(BadInput, match="schema 2"):
        recompute(again | {"schema": 2})
    again["runs"][0] = {"id": "x"}
    with pytest.raises(BadInput, match="changed by hand"):
        recompute(again)


def test_runs_to_do_again_are_those_in_doubt_first() -> None:
    document = ranking.build_document(hand(), "hand")
    ids = sorted(item["id"] for item in document["runs"])
    assert [item["id"] for item in sample_runs(document, 3)] == ids[:3]
    assert len(sample_runs(document, 99)) == len(ids)
    changed = json.loads(encode_document(document))
    victim = next(item for item in changed["runs"] if item["id"] == ids[-1])
    victim["metrics"]["final/clean_accuracy"] -= 0.125
    wrong = differences(changed, recompute(changed))
    assert ids[-1] in [item["id"] for item in sample_runs(changed, 2, wrong)]


def test_files(tmp_path: Path) -> None:
    given = runs()
    document = ranking.build_document(given, "x")
    names = [path.name for path in write_leaderboard(document, given, tmp_path / "new")]
    assert names == [
        "leaderboard.json",
        "leaderboard.csv",
        "leaderboard.md",
        "leaderboard.tex",
        "runs.csv",
    ]
    assert load_document(tmp_path / "new" / "leaderboard.json") == document
    table = list(csv.DictReader(io.StringIO((tmp_path / "new" / "leaderboard.csv").read_text())))
    assert [row["defense"] for row in table] == [row["defense"] for row in document["rows"]]
    assert float(table[0]["clean_accuracy_mean"]) == document["rows"][0]["clean_accuracy"]["mean"]
    costs = list(csv.DictReader(io.StringIO((tmp_path / "new" / "runs.csv").read_text())))
    assert [row["id"] for row in costs] == [item["id"] for item in document["runs"]]
    assert {row["total_train_s"] for row in costs} == {"1.500"}
    assert costs[0]["run_id"].startswith("mlflow-")
    text = (tmp_path / "new" / "leaderboard.md").read_text()
    ranked, _, by_attack = text.partition("## Attack success, attack by attack")
    assert len([line for line in ranked.splitlines() if line.startswith("| ")]) == 2 + len(
        document["rows"]
    )
    # three attacks
    assert len([line for line in by_attack.splitlines() if line.startswith("| ")]) == 2 + 3
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        write_leaderboard(document, given, tmp_path / "file")
    for content, message in (("{", "is not JSON"), ("[]", "no leaderboard")):
        (tmp_path / "file").write_text(content)
        with pytest.raises(BadInput, match=message):
            load_document(tmp_path / "file")
    with pytest.raises(BadInput, match="No such file"):
        load_document(tmp_path / "absent")


def test_the_terminal_table_fits_100_columns() -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(terminal_table(ranking.build_document(runs(), "x")))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert all(
        word in text
        for word in (
            "fedavg",
            "mask_threshold=0.6, trim_fraction=0.2",
            "+model_replacement",
            "x: 20 defenses",
        )
    )


@pytest.mark.parametrize("width", [24, 30, 40, 60, 80, 100, 140])
def test_the_terminal_table_keeps_the_names_at_any_width(width: int) -> None:
    document = ranking.build_document(runs(), "x")
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(terminal_table(document, console.width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for row in ranked_rows(document):
        for word in re.findall(r"[\w=.]+", str(row.defense)):
            assert word in text
    heads = ["DER", "accuracy", "worst", "under"]
    left_out = text.partition("too narrow for ")[2].replace("\n", " ")
    assert [head for head in heads if head in text] == heads, "shown, or named as left out"
    assert bool(left_out) == (width < 71)
    assert "DER" not in left_out or width < 30


def test_natural_success_is_the_dormant_twins_on_the_same_trigger() -> None:
    """Of the same setting and seeds; the twin holds the trigger's stage alone, and stands in no
    cell of its own.
    """
    attacked = [
        run(
            "badnets(size=3)+model_replacement(strength=5.0)",
            "median",
            seed,
            {"clean_accuracy": 0.9, "attack_success_rate": 0.5},
        )
        for seed in (0, 1)
    ]
    twins = [
        run(
            "badnets(size=3)",
            "fedavg",
            seed,
            {"clean_accuracy": 0.95, "attack_success_rate": rate},
            dormant=True,
        )
        for seed, rate in ((0, 0.02), (1, 0.04), (2, 0.9))
    ]
    others = [
        run(
            "badnets(size=2)",
            "fedavg",
            0,
            {"clean_accuracy": 0.95, "attack_success_rate": 0.8},
            dormant=True,
        ),
        run(
            "badnets(size=3)",
            "fedavg",
            0,
            {"clean_accuracy": 0.95, "attack_success_rate": 0.7},
            dormant=True,
            batch=8,
        ),
    ]
    document = ranking.build_document([*attacked, *twins, *others], "demo")
    assert [(cell["attack"], cell["defense"]) for cell in document["cells"]] == [
        ("badnets(size=3)+model_replacement(strength=5.0)", "median"),
        *[("none", "fedavg")] * 2,
    ]
    assert document["cells"][0]["natural_success"]["mean"] == pytest.approx(0.03)
    assert document["cells"][0]["knows"] == "own data"
    assert len(document["runs"]) == 7
    assert recompute(document) == document


def twin(attack: str, seed: int, success: float) -> Run:
    return run(attack, "fedavg", seed, figures(0.9, success), dormant=True)


def test_an_attack_that_does_nothing_is_left_out_of_the_ranks() -> None:
    """B has 12 % under FedAvg, its twin 11 %: a defense that shows 12 % has stopped nothing."""
    given = [run(A, "fedavg", 0, figures(1.0, 1.0)), run(A, "median", 0, figures(1.0, 0.5))]
    given += [run(B, "fedavg", 0, figures(1.0, 0.12)), run(B, "median", 0, figures(0.5, 0.12))]
    given += [twin(A, 0, 0.1), twin(B, 0, 0.11)]
    document = ranking.build_document(given, "x")
    median = rows(document)["median"]
    assert (median["der"], median["attacks"], median["left_out"]) == (0.75, [A], [B])
    assert median["missing"] == 0
    verdicts = {cell["attack"]: (cell["bites"], cell["left_out"]) for cell in document["cells"]}
    assert verdicts == {
        A: (True, None),
        B: (False, "under FedAvg it has 12.0 %, its clean twin 11.0 %"),
        "none": (None, None),
    }
    shown = markdown(document)
    assert "not ranked: label_flip: under FedAvg it has 12.0 %" in shown
    assert "| label_flip° |" in shown
    assert recompute(document) == document


def test_success_without_the_trigger_is_no_backdoor() -> None:
    calls_everything_zero = figures(1.0, 0.6, untriggered_target_rate=0.58)
    document = ranking.build_document(
        [run(A, "fedavg", 0, calls_everything_zero), twin(A, 0, 0.1)], "x"
    )
    cell, _ = document["cells"]
    assert cell["bites"] is False
    assert "the same inputs without the trigger 58.0 %" in cell["left_out"]
    assert cell["untriggered_target_rate"]["mean"] == 0.58
    (row,) = document["rows"]
    assert (row["der"], row["attacks"], row["left_out"]) == (None, [], [A])


def test_a_run_without_attackers_counts_nowhere() -> None:
    given = [run(A, "fedavg", seed, figures(1.0, 1.0, attack_turns=4)) for seed in (0, 1)]
    given += [
        run(A, "median", 0, figures(1.0, 0.5, attack_turns=4)),
        run(A, "median", 1, figures(1.0, 0.0, attack_turns=0)),
    ]
    document = ranking.build_document(given, "x")
    assert rows(document)["median"]["attack_success_rate"]["mean"] == 0.5
    cell = next(cell for cell in document["cells"] if cell["defense"] == "median")
    assert (cell["seeds"], cell["unattacked_seeds"]) == ([0], [1])
    assert any("of seed 1 no malicious client" in note for note in footnotes(document))
    never = ranking.build_document([run(A, "fedavg", 0, figures(1.0, 0.0, attack_turns=0))], "x")
    assert never["cells"][0]["left_out"] == "no malicious client took part in an attacked round"
    assert never["rows"][0]["attack_success_rate"] is None


def test_what_is_not_known_is_said() -> None:
    document = ranking.build_document([run(A, "median", 0, figures(1.0, 0.5))], "x")
    assert document["cells"][0]["bites"] is None
    assert any("is not known" in note for note in footnotes(document))


def test_lifetimes_are_over_the_twin() -> None:
    natural = [(at, 0.45) for at in range(60)]
    rates = [(at, 0.85 if at < 5 else 0.45) for at in range(60)]
    attacked = run(A, "fedavg", 0, figures(1.0, 0.45), attack_stop=5)
    dormant = run(A, "fedavg", 0, figures(1.0, 0.45), attack_stop=5, dormant=True)
    given = [
        item._replace(curves={"round/attack_success_rate": curve})
        for item, curve in ((attacked, rates), (dormant, natural))
    ]
    document = ranking.build_document(given, "x")
    cell, _ = document["cells"]
    assert cell["time_to_backdoor"]["mean"] == 1.0
    assert (cell["durability"]["mean"], cell["still_active"]) == (0.0, 0)
    assert "| badnets | fedavg | 1.0 | 0.0 |" in markdown(document)
    assert recompute(json.loads(encode_document(document))) == document


def test_a_backdoor_that_faded_is_said_to_have_faded() -> None:
    attacked = run(A, "fedavg", 0, figures(1.0, 0.05), attack_stop=2)
    dormant = run(A, "fedavg", 0, figures(1.0, 0.04), attack_stop=2, dormant=True)
    given = [
        item._replace(curves={"round/attack_success_rate": curve})
        for item, curve in (
            (attacked, [(0, 0.5), (1, 0.9), (2, 0.3), (3, 0.05)]),
            (dormant, [(at, 0.04) for at in range(4)]),
        )
    ]
    cell, _ = ranking.build_document(given, "x")["cells"]
    assert cell["left_out"] == (
        "under FedAvg it has 5.0 % at the end, after 90.0 % while it attacked, its clean twin 4.0 %"
    )


def test_lifetimes_say_of_how_many_seeds_they_are() -> None:
    natural = [(at, 0.0) for at in range(4)]
    curves = ([(0, 0.9), (1, 0.9), (2, 0.8), (3, 0.1)], [(0, 0.1), (1, 0.2), (2, 0.1), (3, 0.1)])
    given = [
        run(A, "fedavg", seed, figures(1.0, 0.1), attack_stop=2)._replace(
            curves={"round/attack_success_rate": curve}
        )
        for seed, curve in enumerate(curves)
    ]
    given += [
        run(A, "fedavg", seed, figures(1.0, 0.0), attack_stop=2, dormant=True)._replace(
            curves={"round/attack_success_rate": natural}
        )
        for seed in (0, 1)
    ]
    document = ranking.build_document(given, "x")
    assert document["cells"][0]["planted_seeds"] == 1
    assert "| 1.0 (1 of 2 seeds) | 1.0 (1 of 2 seeds) |" in markdown(document)


def test_attacks_without_a_success_are_named() -> None:
    given = [
        run("sign_flip(strength=4.0)", "fedavg", 0, figures(0.2)),
        run(A, "fedavg", 0, figures(1.0, 1.0)),
    ]
    notes = footnotes(ranking.build_document(given, "x"))
    assert any("counted in the accuracy only: sign_flip" in note for note in notes)
