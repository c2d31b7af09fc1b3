"""The ranking against numbers worked out by hand, its order, its bytes, and what it refuses."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
from pathlib import Path

import pytest
from rich.console import Console

from backstop.platform.params import BadInput
from backstop.platform.results.leaderboard import ranking
from backstop.platform.results.leaderboard.document import encode_document
from backstop.platform.results.leaderboard.reading import load_document
from backstop.platform.results.leaderboard.verification import differences, recompute, sample_runs
from backstop.platform.results.report import page
from backstop.platform.results.tables.columns import ranked_rows
from backstop.platform.results.tables.files import write_leaderboard
from backstop.platform.results.tables.markdown import markdown
from backstop.platform.results.tables.notes import footnotes
from backstop.platform.results.tables.terminal import terminal_table, terminal_text
from backstop.platform.results.tracking.runs import Run
from tests.boards import BASE, run, runs
from tests.comparisons import A, B, attacked, board, cell_of, clean, figures, rows, twins


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
    listed = [
        run(*cell, seed, figures(*pair))
        for cell, pairs in table.items()
        for seed, pair in enumerate(pairs)
    ]
    listed += [run("none", "fedavg", seed, figures(value)) for seed, value in ((0, 1.0), (1, 0.75))]
    listed += clean((0, 1), "median", 0.75)
    return [*listed, *twins(A, (0, 1)), *twins(B, (0, 1), 0.25), *twins(B, (0, 1), 0.5, "median")]


def test_numbers_worked_out_by_hand() -> None:
    document = ranking.build_document(hand(), "hand")
    assert [(row["rank"], row["defense"]) for row in document["rows"]] == [
        (1, "krum(f=1)"),
        (2, "median"),
        (None, "fedavg"),
    ]
    krum, median, fedavg = document["rows"]
    # E of krum: A 0.5 over 0; B (0.25 - 0.25) = 0 over the undefended twin, for want of its own
    assert krum["excess_success"]["mean"] == 0.25
    assert krum["borrowed_twins"] and not fedavg["borrowed_twins"]
    # E of median: A 0.25, 0.125; B (0.75 - 0.5) / 0.5 = 0.5 over its own twin
    assert [cell_of(document, B, "median")[key]["mean"] for key in ("excess_success",)] == [0.5]
    assert median["excess_success"]["mean"] == (0.1875 + 0.5) / 2
    # the worst attack of each seed is the one of the other seed
    assert (median["worst_attack"], median["worst_excess"]["mean"]) == (B, 0.5)
    assert median["worst_attack_success_rate"]["mean"] == 0.75
    # FedAvg without attack has 1, 0.75: beside it krum lacks 0, 0.125 and then nothing
    assert krum["cost_under_attack"]["mean"] == 0.03125
    assert krum["cost_without_attack"] is None
    assert krum["score"]["mean"] == 1 - 0.5 - 0.03125
    # median lacks 0.25, 0 under both attacks and as much without one
    assert median["cost_under_attack"] == median["cost_without_attack"]
    assert median["score"] == {
        "mean": 0.375,
        "low": 0.25,
        "high": 0.5,
        "n": 2,
        "kind": "range",
    }
    # DER, seed by seed: krum A saves 0.5, 0.375 at no cost; B saves 0.25
    assert krum["der"]["mean"] == ((0.75 + 0.6875) / 2 + 0.625) / 2
    # median: A saves 0.75 at 0.125 and 0.75 at 0.25; B saves nothing and costs 0.125
    assert median["der"]["mean"] == ((0.8125 + 0.75) / 2 + 0.4375) / 2
    assert median["asr_reduction"]["mean"] == (0.75 - 0.25) / 2
    assert median["clean_accuracy"]["mean"] == 0.75
    assert fedavg["der"]["mean"] == 0.5
    assert fedavg["no_attack_accuracy"]["mean"] == 0.875
    assert krum["no_attack_accuracy"] is fedavg["robust_accuracy"] is None
    assert (median["attacks"], median["seeds"], median["missing"], median["diverged"]) == (
        [A, B],
        [0, 1],
        0,
        0,
    )
    assert {"schema": 2, "experiment": "hand", "fingerprint": "cpu"}.items() <= document.items()
    cell = cell_of(document, A, "median")
    assert (cell["dataset"], cell["model"], cell["seeds"]) == ("digits", "mlp", [0, 1])
    assert cell["attack_success_rate"]["mean"] == 0.1875


def test_a_mean_over_a_row_is_of_the_seeds_that_all_of_its_cells_have() -> None:
    listed = [*clean(range(3)), *twins(A, range(3)), *twins(B, range(3))]
    listed += attacked(A, "median", [0.5, 0.25, 0.75])
    listed += attacked(B, "median", [0.5, 1.0])
    median = rows(board(listed))["median"]
    assert median["attack_success_rate"]["mean"] == (0.5 + 0.625) / 2
    assert (median["seeds"], median["uncounted_seeds"]) == ([0, 1], [2])
    assert any("do not count in: median" in note for note in footnotes(board(listed)))
    apart = [run(B, "median", 7, figures(1.0, 1.0)), *clean([7]), *twins(B, [7])]
    median = rows(board([*listed[:-2], *apart]))["median"]
    assert (median["attack_success_rate"]["mean"], median["attack_success_rate"]["n"]) == (0.75, 0)
    assert median["seeds"] == []


def test_only_seeds_that_both_have_are_compared() -> None:
    given = [
        run(A, "fedavg", 0, figures(1.0, 1.0)),
        run(A, "fedavg", 1, figures(0.5, 0.5)),
        run(A, "median", 1, figures(0.25, 0.25)),
    ]
    median = rows(board(given))["median"]
    assert (median["accuracy_cost"]["mean"], median["asr_reduction"]["mean"]) == (0.25, 0.25)
    alone = rows(board([given[0], run(A, "krum", 7, figures(0.5, 0.5))]))["krum"]
    assert alone["accuracy_cost"] is alone["asr_reduction"] is alone["der"] is None


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
    assert median["accuracy_cost"]["mean"] == (0.5 + 0.0) / 2
    assert median["asr_reduction"]["mean"] == (0.5 + 0.25) / 2


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
    again["rows"][0]["der"]["mean"] = 0.9
    where, changed = again["cells"][2], again["cells"][2]["clean_accuracy"]["mean"]
    assert changed - 0.25 == document["cells"][2]["clean_accuracy"]["mean"]
    cell = f"cells[2] {where['attack']} × {where['defense']}"
    assert differences(again, recompute(again)) == [
        f"rows[0] krum(f=1) der mean: file 0.9, recomputed {document['rows'][0]['der']['mean']}",
        f"{cell} clean_accuracy mean: file {changed}, recomputed {changed - 0.25}",
    ]
    del again["runs"][-1]
    assert any("runs: file" in line or "cells" in line for line in differences(again, document))
    again["runs"][0] = {"id": "x"}
    with pytest.raises(BadInput, match="changed by hand"):
        recompute(again)


def test_runs_to_do_again_are_those_in_doubt_first() -> None:
    document = ranking.build_document(hand(), "hand")
    ids = sorted(item["id"] for item in document["runs"])
    attacked_ids = sorted(item["id"] for item in document["runs"] if not item["spec"]["dormant"])
    assert [item["id"] for item in sample_runs(document, 3)] == ids[:3]
    assert len(sample_runs(document, 99)) == len(ids)
    changed = json.loads(encode_document(document))
    victim = next(item for item in changed["runs"] if item["id"] == attacked_ids[-1])
    victim["metrics"]["final/clean_accuracy"] -= 0.125
    wrong = differences(changed, recompute(changed))
    assert attacked_ids[-1] in [item["id"] for item in sample_runs(changed, 2, wrong)]


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
        "leaderboard.parquet",
        "cells.parquet",
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


def test_a_document_that_gzip_has_compressed_is_read_by_its_content(tmp_path: Path) -> None:
    document = ranking.build_document(runs(), "x")
    packed = gzip.compress(encode_document(document).encode())
    (tmp_path / "leaderboard.json.gz").write_bytes(packed)
    assert load_document(tmp_path) == load_document(tmp_path / "leaderboard.json.gz") == document
    (tmp_path / "other").write_bytes(packed)
    assert load_document(tmp_path / "other") == document
    (tmp_path / "leaderboard.json").write_text("{")
    with pytest.raises(BadInput, match="is not JSON"):
        load_document(tmp_path)
    for cut in (packed[:-1], packed[: len(packed) // 2], packed[:4]):
        (tmp_path / "other").write_bytes(cut)
        with pytest.raises(BadInput, match="is cut short"):
            load_document(tmp_path / "other")
    (tmp_path / "other").write_bytes(packed[:-8] + bytes(8))
    with pytest.raises(BadInput, match=r"leaderboard .*other: "):
        load_document(tmp_path / "other")


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
            "mask_threshold=0.6,",
            "norm_clip+median",
            "range of 2 seeds",
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
    heads = ["score", "worst", "cost", "success", "accuracy"]
    left_out = text.partition("too narrow for ")[2].replace("\n", " ")
    assert [head for head in heads if head in text] == heads, "shown, or named as left out"
    assert bool(left_out) == (width < 95)
    assert "score" not in left_out or width < 60


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
    assert document["cells"][0]["borrowed_twins"] == [0, 1]
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
    assert (median["der"]["mean"], median["attacks"], median["left_out"]) == (0.75, [A], [B])
    assert median["missing"] == 0
    verdicts = {cell["attack"]: (cell["bites"], cell["left_out"]) for cell in document["cells"]}
    assert verdicts == {
        A: (True, None),
        B: (False, "under FedAvg it has 12.0 %, its clean twin 11.0 %"),
        "none": (None, None),
    }
    shown = markdown(document)
    assert "left out: label_flip: under FedAvg it has 12.0 %" in shown
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


TWO = "badnets(target=1) | sig(target=2)"
ABSENT = {"absent_adversaries": 1.0, "absent_adversaries/2": 1.0}


def one_absent() -> list[Run]:
    """Of six runs under two adversaries one, of median, in which the second never attacked."""
    given = [*clean([0, 1]), *twins(TWO, [0, 1]), *attacked(TWO, "fedavg", [1.0, 1.0])]
    given += attacked(TWO, "krum(f=1)", [0.5, 0.5])
    given += [run(TWO, "median", 0, figures(1.0, 0.5))]
    return [*given, run(TWO, "median", 1, figures(1.0, 0.25, attack_turns=4, **ABSENT))]


def test_a_run_in_which_an_adversary_never_attacked_counts_and_is_marked(tmp_path: Path) -> None:
    given = one_absent()
    document = ranking.build_document(given, "x")
    median = rows(document)["median"]
    assert median["attack_success_rate"]["mean"] == 0.375
    assert median["absent_adversaries"] == {"2": 1}
    assert cell_of(document, TWO, "median")["absent_adversaries"] == {"2": [1]}
    marked = [str(row.defense) for row in ranked_rows(document) if "‖" in row.defense.mark]
    assert marked == ["median‖"]
    said = "adversary 2 in 1 of 6 runs of badnets | sig"
    write_leaderboard(document, given, tmp_path)
    texts = {file: (tmp_path / f"leaderboard.{file}").read_text() for file in ("md", "tex", "csv")}
    assert "median‖" in texts["md"] and said.replace("|", "\\|") in texts["md"]
    assert r"median$\Vert$" in texts["tex"] and said.replace("|", r"\textbar{}") in texts["tex"]
    table = {line["defense"]: line for line in csv.DictReader(io.StringIO(texts["csv"]))}
    assert [table[name]["absent_adversaries/2"] for name in ("median", "krum(f=1)")] == ["1", ""]
    shown = terminal_text(document, 200)
    assert "median‖" in shown and said in shown
    html = page.page(document, given)
    assert "median‖" in html and said in html
    assert "adversaries that never attacked" in html and ">2 (seed 1)</td>" in html
    assert recompute(document) == document


def test_where_no_adversary_is_absent_nothing_is_said_of_it() -> None:
    given = one_absent()[:-1]
    document = ranking.build_document(given, "x")
    assert not any("absent" in key for row in document["rows"] for key in row)
    assert not any("absent" in key for cell in document["cells"] for key in cell)
    assert "adversar" not in f"{footnotes(document)}{page.page(document, given)}"


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
