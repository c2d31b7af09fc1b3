"""Specs as text, as JSON and as ids."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstop.platform import plugins
from backstop.platform.contract import Part, Scalar, Spec
from backstop.platform.params import BadInput
from backstop.platform.specs import spec as specs
from backstop.platform.specs.change import attack_strength, change_spec, grid
from backstop.platform.specs.part import (
    chain_text,
    complete_part,
    parse_chain,
    parse_part,
    parse_value,
    to_chain,
)
from backstop.platform.specs.spec import (
    ENGINE,
    attackers_in_cohort,
    canonical_json,
    scalar_fields,
    spec_from_json,
    spec_id,
    spec_to_json,
    validate,
)

BASE = Spec(dataset=Part("pictures"), model=Part("line"))

NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,11}", fullmatch=True) | st.sampled_from(
    ["class", "none", "True", "lambda"]
)
TEXTS = st.text(st.characters(codec=None), max_size=20) | st.text(
    "ab1.0_-+/\\'\"()[]{},= \n#é", max_size=12
)
LOOKALIKES = st.from_regex(
    r"none|None|TRUE|False|nan|inf|007|1_000|0x10|1e5|-3|[.]5|[+]7|[(]3[)]|'a'|r'b'|1e999|1j|a=b|-",
    fullmatch=True,
)
SCALARS: st.SearchStrategy[Scalar] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), NAMES, TEXTS, LOOKALIKES
)


PARTS = st.builds(Part, NAMES, st.dictionaries(NAMES, SCALARS, max_size=4))


def spec(**changes: Any) -> Spec:
    """A spec on the toy plug-ins."""
    return BASE.replace(**changes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("median", (Part("median"),)),
        ("median()", (Part("median"),)),
        ("clip(norm=1)+median", (Part("clip", {"norm": 1}), Part("median"))),
        (" clip( norm = 1.5 ) + median ", (Part("clip", {"norm": 1.5}), Part("median"))),
        ("a+b+c+d", (Part("a"), Part("b"), Part("c"), Part("d"))),
        (
            "a(x=-1, y=1e-3, z=true, w=none, v=False, u=None)",
            (Part("a", {"x": -1, "y": 1e-3, "z": True, "w": None, "v": False, "u": None}),),
        ),
        ("a(mode=exact, name='two words')", (Part("a", {"mode": "exact", "name": "two words"}),)),
    ],
)
def test_text_forms(text: str, expected: tuple[Part, ...]) -> None:
    found = parse_chain(text)
    assert found == expected
    assert [list(map(type, item.params.values())) for item in found] == [
        list(map(type, item.params.values())) for item in expected
    ]


@pytest.mark.parametrize(
    "text",
    [
        "''",
        "a(",
        "a)",
        "a b",
        "a(3)",
        "a(x)",
        "a(*x)",
        "a(**x)",
        "a-b",
        "a+",
        "+a",
        "1",
        "'a'",
        "a.b",
        "a(x=1)(y=2)",
        "a;b",
        "a[0]",
        "a+(b-c)",
        "a=1",
    ],
)
def test_text_that_is_no_chain(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_chain(text)
    assert str(caught.value).startswith(
        f"{text!r} is not of the form name(key=value)+name; example: "
    )


@given(st.lists(PARTS, min_size=1, max_size=4))
@settings(max_examples=300)
def test_text_form_round_trip(chain: list[Part]) -> None:
    found = parse_chain(chain_text(chain, "attack"))
    assert found == tuple(chain)
    for one, other in zip(found, chain, strict=True):
        assert {key: type(item) for key, item in one.params.items()} == {
            key: type(item) for key, item in other.params.items()
        }


@given(TEXTS)
def test_any_text_gives_stages_or_one_line(text: str) -> None:
    try:
        found = parse_chain(text)
    except BadInput as error:
        assert str(error).startswith((repr(text), f'"{text}"'))
    else:
        assert parse_chain("+".join(map(str, found))) == found


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mine.csv", "mine.csv"),
        ("../data/2019-07/mine.v2.csv", "../data/2019-07/mine.v2.csv"),
        ("/data/my-file_1.csv.gz", "/data/my-file_1.csv.gz"),
        ("~/x.csv", "~/x.csv"),
        (r"C:\data\new.csv", r"C:\data\new.csv"),
        ("class", "class"),
        ("lambda", "lambda"),
        ("if", "if"),
        ("2nd", "2nd"),
        ("007", "007"),
        ("-", "-"),
        ("1.2.3", "1.2.3"),
        ("id+name", "id+name"),
        ("128-256", "128-256"),
        ("glove.6B.300d", "glove.6B.300d"),
        ("50%", "50%"),
        ("<=50K", None),  # it holds =
        ("'<=50K'", "<=50K"),
        ("a:b;c|d&e!f?g*h@i#j$k^l~m", "a:b;c|d&e!f?g*h@i#j$k^l~m"),
        ("data(1).csv", "data(1).csv"),
        ("[1, 2]", "[1, 2]"),
        ("'my file.csv'", "my file.csv"),
        ('"it\'s, (a) file=\\"x\\".csv"', 'it\'s, (a) file="x".csv'),
        (r"'C:\data\new.csv'", "C:\\data\new.csv"),  # an escape is one, what is none stays
        (r"r'C:\data\new.csv'", r"C:\data\new.csv"),
        ("'tab\\tline\\nbell\\x07\\N{BULLET}'", "tab\tline\nbell\a•"),
        ("''", ""),
        ("'1'", "1"),
        ("-1", -1),
        ("- 1", -1),
        ("+1.5e+3", 1500.0),
        (".5", 0.5),
        ("1_000", 1000),
        ("0x10", 16),
        ("(3)", 3),
        ("-1e999", float("-inf")),
    ],
)
def test_values_as_people_write_them(text: str, value: Scalar) -> None:
    chain = f"table(path={text}, test = 0.1)"
    if value is None:
        with pytest.raises(BadInput, match="quote the value of path"):
            parse_chain(chain)
        return
    found = parse_chain(chain)
    assert found == (Part("table", {"path": value, "test": 0.1}),)
    assert type(found[0].params["path"]) is type(value)
    if text != "(3)":
        assert parse_chain(f"table(path=( {text} ), test=0.1)+median") == (*found, Part("median"))
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("table(path=my file.csv, label=class)", "table(path='my file.csv', label=class)"),
        ("table(path=a b.csv, label=<=50K)+x", "table(path='a b.csv', label='<=50K')+x"),
        ("table(path=it's.csv)", 'table(path="it\'s.csv")'),
        ("table(path=, label=x)", "table(path='', label=x)"),
        ("phrase(words=say 'a, b' now)", "phrase(words=\"say 'a, b' now\")"),
        ("t(path='a' b.csv)", "t(path=\"'a' b.csv\")"),
    ],
)
def test_text_that_lacks_quotes_is_shown_with_them(text: str, mended: str) -> None:
    with pytest.raises(BadInput, match="quote the value of") as caught:
        parse_chain(text)
    shown = str(caught.value).partition("quote the value of ")[2].partition(": ")[2]
    assert (shown[1:-1] if shown.startswith('"') else ast.literal_eval(shown)) == mended
    parse_chain(mended)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("badnets(size=3 target=1)", "a comma is missing before target="),
        ("badnets(size=3, size=4)", "size stands twice"),
        ("table(mine.csv, label=class)", "'mine.csv, label=class)' does not start with key=value"),
        ("badnets(size=3", "is not closed"),
        ("badnets+", "it breaks off"),
        ("multi-krum", "it leaves that form at '-krum'"),
    ],
)
def test_the_message_says_where_the_form_is_left(text: str, reason: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_chain(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'1'", "1"),
        ("my file.csv", "my file.csv"),
        ("a=b", "a=b"),
        ("(3)", 3),
        ("(x)", "(x)"),
        ("it's", "it's"),
    ],
)
def test_a_value_alone_needs_no_quotes(text: str, value: Scalar) -> None:
    assert parse_value(text) == value


def test_text_of_a_part_does_not_depend_on_the_order_of_parameters() -> None:
    items = [("size", 3), ("target", 1), ("loud", True)]
    assert {str(Part("a", dict(order))) for order in permutations(items)} == {
        "a(loud=True, size=3, target=1)"
    }


@pytest.mark.parametrize(("role", "nothing"), [("attack", "none"), ("defense", "fedavg")])
def test_the_empty_chain_has_a_name(role: str, nothing: str) -> None:
    assert chain_text((), role) == nothing
    assert to_chain(nothing, role) == ()
    assert to_chain([Part(nothing), "other"], role) == (Part("other"),)
    assert to_chain(f"{nothing}+other", role) == (Part("other"),)


@pytest.mark.parametrize("given_", ["a+b", ["a", "b"], [Part("a"), "b"], (Part("a"), Part("b"))])
def test_chains_from_any_form(given_: Any) -> None:
    assert to_chain(given_, "attack") == (Part("a"), Part("b"))


def test_one_part_is_one_part() -> None:
    with pytest.raises(BadInput, match="where exactly one is needed"):
        parse_part("a+b")


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_has_to_be_named(text: str) -> None:
    with pytest.raises(BadInput, match=f"^{text!r} is not of the form .*; it is empty$"):
        parse_part(text)
    with pytest.raises(
        BadInput, match=f"^defense {text!r} names no stage; no defense at all is fedavg$"
    ):
        to_chain(text, "defense")
    with pytest.raises(
        BadInput, match=f"^attack {text!r} names no stage; no attack at all is none$"
    ):
        grid(BASE, attack=[text])
    with pytest.raises(BadInput, match="it is empty"):
        to_chain([text, "median"], "defense")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-3", 1e-3),
        ("true", True),
        ("True", True),
        ("none", None),
        ("None", None),
        ("word", "word"),
    ],
)
def test_scalars_from_text(text: str, expected: Scalar) -> None:
    found = parse_value(text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("text", ["(1, 2)", "[1]", "{}", "1 +", "a b", "__import__('os')"])
def test_text_that_is_no_scalar_stays_text(text: str) -> None:
    assert parse_value(text) == text


def test_the_scalars_are_all_fields_but_the_parts() -> None:
    assert set(scalar_fields()) == {item.name for item in fields(Spec)} - {
        "dataset",
        "model",
        "attack",
        "defense",
        "optimizer",
    }
    assert all(parameter.text for parameter in scalar_fields().values())


# -- validation


def test_validate_fills_every_default_in(toys: Path) -> None:
    found = validate(
        spec(
            attack=(Part("stamp", {"size": 2}), Part("scale")),
            defense=(Part("clip"),),
            optimizer=Part("sgd", {"lr": 1}),
        )
    )
    assert found.attack == (
        Part("stamp", {"target": 0, "size": 2}),
        Part("scale", {"factor": 10.0}),
    )
    assert found.defense == (Part("clip", {"norm": 1.0}),)
    assert found.optimizer == Part("sgd", {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0})
    assert validate(found) == found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack": (Part("stmp"),)}, "unknown attack 'stmp'; did you mean 'stamp'?"),
        ({"defense": (Part("clipp"),)}, "unknown defense 'clipp'; did you mean 'clip'?"),
        ({"dataset": Part("picture")}, "unknown dataset 'picture'; did you mean 'pictures'?"),
        ({"model": Part("lin")}, "unknown model 'lin'; did you mean 'line'?"),
        ({"optimizer": Part("sdg")}, "unknown optimizer 'sdg'; did you mean 'sgd'?"),
        ({"optimizer": Part("sgd", {"rate": 1})}, "optimizer sgd: unknown parameter 'rate'"),
        ({"optimizer": Part("sgd", {"lr": 0})}, "lr is a number in (0, 1e+06]"),
        ({"defense": (Part("clip", {"norm": -1}),)}, "norm=-1.0 is not allowed"),
        (
            {"defense": (Part("clip", {"nrm": 1}),)},
            "defense clip: unknown parameter 'nrm'; did you mean 'norm'?",
        ),
        ({"defense": (Part("middle", {"how": "lowe"}),)}, "did you mean 'low'?"),
        ({"clients": 10, "per_round": 11}, "per_round=11 is more than clients=10"),
        ({"attack_start": 5, "attack_stop": 5}, "attack_stop=5 must come after attack_start=5"),
        ({"rounds": 0}, "spec: rounds=0 is not allowed; rounds is an integer in [1, 1e+09]"),
        ({"rounds": 2.5}, "rounds=2.5 is not allowed"),
        ({"malicious": 1.01}, "malicious=1.01 is not allowed"),
        ({"malicious": float("nan")}, "malicious=nan is not allowed"),
        ({"selection": "fxed"}, "did you mean 'fixed'?"),
        ({"alpha": 0.0}, "alpha=0.0 is not allowed"),
        ({"alpha": "naturl"}, "did you mean 'natural'?"),
        ({"seed": -1}, "seed=-1 is not allowed"),
        (
            {"dataset": Part("sheet"), "attack": (Part("stamp"),)},
            "attack stamp takes image data; dataset sheet is table data",
        ),
        (
            {"attack": (Part("stamp"), Part("scale"), Part("flip"))},
            "stamp and flip both define the trigger; keep one of them",
        ),
    ],
)
def test_bad_specs(toys: Path, changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        validate(spec(**changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("alpha", [None, "natural", "shards", 0.5, 1])
def test_every_form_of_alpha(toys: Path, alpha: Any) -> None:
    assert validate(spec(alpha=alpha)).alpha == alpha


# -- identity


def test_an_id_is_stable_however_the_spec_is_written(toys: Path) -> None:
    short = spec(
        attack=(Part("stamp"), Part("scale", {"factor": 10})),
        defense=(Part("fedavg"), Part("clip")),
    )
    stamps = [Part("stamp", dict(order)) for order in permutations([("target", 0), ("size", 3)])]
    longs = [
        spec(attack=(stamp, Part("scale")), defense=(Part("clip", {"norm": 1}),), seed=0, alpha=0.5)
        for stamp in stamps
    ]
    assert {item.id for item in [short, *longs]} == {short.id}
    assert validate(short).id == short.id
    assert len(short.id) == 64


def test_an_id_changes_with_everything_that_can_change_a_number(toys: Path) -> None:
    other: dict[str, Any] = {
        "dataset": Part("sheet"),
        "model": Part("line", {"width": 9}),
        "attack": (Part("scale"),),
        "defense": (Part("clip"),),
        "clients": 101,
        "per_round": 19,
        "malicious": 0.1,
        "selection": "fixed",
        "alpha": None,
        "rounds": 31,
        "local_epochs": 2,
        "batch": 32,
        "optimizer": Part("adam"),
        "start": f"sha256-{'0' * 64}",
        "warmup": 5,
        "server_lr": 0.5,
        "attack_start": 1,
        "attack_stop": 9,
        "attack_every": 2,
        "attackers": "in_turn",
        "dormant": True,
        "eval_every": 2,
        "root_size": 99,
        "block": 9,
        "precision": "bfloat16",
        "evaluate_on": "validation",
        "evaluate_by": "clients",
        "client_dropout": 0.25,
        "malicious_by": "most",
        "fake_samples": "mean",
        "labels_each": 3,
        "size_exponent": 2.0,
        "input_noise": 0.5,
        "seed": 1,
    }
    assert set(other) == {item.name for item in fields(Spec)}  # a new field belongs here
    together = {
        "dormant": {"attack": other["attack"]},  # the clean twin of nothing is refused
        "labels_each": {"alpha": "labels"},
        "size_exponent": {"alpha": "sizes"},
    }
    ids = [
        BASE.id,
        *(spec(**{name: value, **together.get(name, {})}).id for name, value in other.items()),
    ]
    assert len(set(ids)) == len(ids)


def test_the_order_of_stages_matters(toys: Path) -> None:
    clip, middle = Part("clip"), Part("middle")
    assert spec(defense=(clip, middle)).id != spec(defense=(middle, clip)).id


def test_an_id_changes_with_the_version_of_a_plugin_it_uses(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacked, clean = spec(attack=(Part("stamp"),)), spec()
    before = (spec_id(attacked), spec_id(clean))
    describe = plugins.describe

    def raised(group: str, name: str) -> plugins.Plugin:
        plugin = describe(group, name)
        if name == "stamp":
            return plugin._replace(facts=replace(plugin.facts, version=2))
        return plugin

    monkeypatch.setattr(plugins, "describe", raised)
    assert spec_id(attacked) != before[0]
    assert spec_id(clean) == before[1]


def test_an_id_changes_with_the_engine(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = spec_id(BASE)
    monkeypatch.setattr(specs, "ENGINE", ENGINE + 1)
    assert spec_id(BASE) != before


def test_an_id_changes_with_the_numbers_of_several_adversaries(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = spec(attack="stamp"), spec(attack="stamp | stamp")
    before = (spec_id(one), spec_id(two))
    monkeypatch.setattr(specs, "ADVERSARIES", specs.ADVERSARIES + 1)
    assert spec_id(one) == before[0]
    assert spec_id(two) != before[1]


def test_the_canonical_form_is_plain_sorted_json(toys: Path) -> None:
    text = canonical_json(spec(attack=(Part("flip"),)))
    document = json.loads(text)
    assert text == json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert document["versions"] == {"datasets.pictures": 1, "models.line": 1, "attacks.flip": 3}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("precision", "bfloat16"),
        ("evaluate_on", "validation"),
        ("client_dropout", 0.25),
        ("fake_samples", 80),
    ],
)
def test_a_field_younger_than_the_ids_is_silent_at_its_default(
    toys: Path, name: str, value: str
) -> None:
    """Ids and documents of stored runs are those of specs without it."""
    document = canonical_json(BASE)
    assert name not in document
    plain, other = spec_to_json(BASE), spec_to_json(BASE.replace(**{name: value}))
    assert other == {**plain, name: value}
    assert spec_from_json(plain) == BASE
    assert getattr(spec_from_json(other), name) == value


def test_the_id_of_the_plain_spec_stays() -> None:
    assert Spec().id == "ac052a3617256cd1d56384afbe0490fe36ed2b311e048c80b3bcf909667bb204"


def test_a_bad_spec_has_no_id(toys: Path) -> None:
    with pytest.raises(BadInput):
        _ = spec(rounds=0).id


# -- JSON


@given(
    st.lists(PARTS, max_size=3),
    st.lists(PARTS, max_size=3),
    st.one_of(st.none(), st.just("natural"), st.floats(0.01, 10)),
    st.integers(0, 2**31 - 1),
)
def test_json_round_trip(attack: list[Part], defense: list[Part], alpha: Any, seed: int) -> None:
    given_ = spec(attack=tuple(attack), defense=tuple(defense), alpha=alpha, seed=seed)
    assert spec_from_json(json.loads(json.dumps(spec_to_json(given_)))) == given_


def test_json_of_an_unknown_field() -> None:
    with pytest.raises(BadInput, match="spec: unknown field 'round'; did you mean 'rounds'"):
        spec_from_json({"round": 3})


@pytest.mark.parametrize(
    "part", [{"nam": "x", "params": {}}, {"name": "x"}, [{"name": "x"}], ["x"]]
)
def test_json_of_a_broken_part(part: Any) -> None:
    with pytest.raises(BadInput, match="a plug-in is written"):
        spec_from_json({"attack": part})


# -- changes, strength and grids


@pytest.mark.parametrize(
    ("key", "new", "expected"),
    [
        ("rounds", 5, {"rounds": 5}),
        ("alpha", None, {"alpha": None}),
        ("malicious", 0, {"malicious": 0.0}),
        ("model", "line(width=2)", {"model": Part("line", {"width": 2})}),
        ("attack", "none", {"attack": ()}),
        ("attack", "flip", {"attack": (Part("flip"),)}),
        ("model.width", 3, {"model": Part("line", {"width": 3})}),
        ("optimizer.lr", 0.1, {"optimizer": Part("sgd", {"lr": 0.1})}),
        (
            "attack.stamp.size",
            4,
            {"attack": (Part("stamp", {"size": 4}), Part("scale", {"factor": 2}))},
        ),
        ("attack.strength", 7, {"attack": (Part("stamp"), Part("scale", {"factor": 7}))}),
        ("defense.clip.norm", 7, {"defense": (Part("clip", {"norm": 7}),)}),
    ],
)
def test_changes(toys: Path, key: str, new: Scalar, expected: Mapping[str, Any]) -> None:
    start = spec(attack=(Part("stamp"), Part("scale", {"factor": 2})), defense=(Part("clip"),))
    assert change_spec(start, key, new) == start.replace(**expected)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("round", "unknown key 'round'; did you mean 'rounds'?"),
        ("rounds.x", "unknown key 'rounds.x'"),
        ("defence", "did you mean 'defense'?"),
        ("attack.strength", "unknown key 'attack.strength' for attack stamp"),
        ("attack.stmp.size", "did you mean 'attack.stamp.…'?"),
        ("attack.size", "unknown key 'attack.size'"),
        ("defense.clip.norm", "for defense fedavg"),
    ],
)
def test_changes_of_what_is_not_there(toys: Path, key: str, hint: str) -> None:
    with pytest.raises(BadInput) as caught:
        change_spec(spec(attack=(Part("stamp"),)), key, 1)
    assert hint in str(caught.value)


def test_a_change_is_checked(toys: Path) -> None:
    with pytest.raises(BadInput, match="--set: rounds='x' is not allowed"):
        change_spec(BASE, "rounds", "x")


def test_strength(toys: Path) -> None:
    assert attack_strength(BASE) is None
    assert attack_strength(spec(attack=(Part("stamp"),))) is None
    assert attack_strength(spec(attack=(Part("stamp"), Part("scale")))) == 10.0
    assert attack_strength(spec(attack=(Part("scale", {"factor": 3}), Part("stamp")))) == 3.0


def test_a_grid_is_an_ordered_product() -> None:
    found = grid(
        BASE,
        attack=["none", "stamp"],
        defense=["fedavg", ["clip(norm=2)", "middle"]],
        seed=range(2),
    )
    assert [
        (chain_text(item.attack, "attack"), chain_text(item.defense, "defense"), item.seed)
        for item in found
    ] == [
        ("none", "fedavg", 0),
        ("none", "fedavg", 1),
        ("none", "clip(norm=2)+middle", 0),
        ("none", "clip(norm=2)+middle", 1),
        ("stamp", "fedavg", 0),
        ("stamp", "fedavg", 1),
        ("stamp", "clip(norm=2)+middle", 0),
        ("stamp", "clip(norm=2)+middle", 1),
    ]
    assert grid(BASE) == [BASE]
    assert grid(BASE, seed=[]) == []


def test_a_grid_consumes_each_axis_once() -> None:
    assert len(grid(BASE, rounds=(n for n in (1, 2)), seed=(n for n in (3, 4, 5)))) == 6


def test_a_grid_over_nothing_known() -> None:
    with pytest.raises(BadInput, match="grid: unknown field 'defence'; did you mean 'defense'"):
        grid(BASE, defence=["clip"])


def test_specs_are_values() -> None:
    assert spec(seed=3) == spec(seed=3)
    with pytest.raises(AttributeError):
        BASE.seed = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("defense", "words"),
    [
        ("median+krum", "median leaves one merged row and krum compares rows; put krum first"),
        (
            "norm_clip+median+trimmed_mean",
            "median leaves one merged row and trimmed_mean compares rows",
        ),
        (
            "bucketing+foolsgold",
            (
                "bucketing mixes the clients' rows and foolsgold needs each client's own; put "
                "foolsgold first"
            ),
        ),
    ],
)
def test_chains_that_make_no_sense_are_refused(defense: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        validate(Spec(defense=to_chain(defense, "defense")))


@pytest.mark.parametrize(
    "defense",
    [
        "krum+median",
        "bucketing+krum",
        "median+norm_clip",
        "fedprox+median+neural_cleanse",
        "foolsgold+bucketing",
    ],
)
def test_chains_that_make_sense_are_not(defense: str) -> None:
    assert chain_text(
        validate(Spec(defense=to_chain(defense, "defense"))).defense, "defense"
    ).count("+") == defense.count("+")


def test_a_root_set_must_be_there_for_whoever_needs_one() -> None:
    with pytest.raises(
        BadInput, match="defense fltrust needs the server's root set; root_size=0 leaves none"
    ):
        validate(Spec(defense=(Part("fltrust"),), root_size=0))
    validate(Spec(defense=(Part("median"),), root_size=0))


def test_text_that_is_no_plain_word_is_quoted_and_read_back() -> None:
    for text in ("a b", "it's", "a+b", "f(x)", "k=v", 'say "x"', "128-256", "word"):
        assert parse_chain(str(Part("phrase", {"words": text}))) == (
            Part("phrase", {"words": text}),
        )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "table(label=5)",
            "label=5 is not allowed; label is text or none; as text write label='5'",
        ),
        ("table(path=none)", "path=None is not allowed; path is text; as text write path='None'"),
    ],
)
def test_a_number_where_text_belongs_is_to_be_quoted(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        complete_part(parse_part(text), "datasets")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"attack_start": 10, "rounds": 3}, "attack_start=10 comes after the last of rounds=3"),
        ({"clients": 10, "per_round": 5, "malicious": 0.04}, "malicious=0.04 of clients=10"),
        (
            {"clients": 50, "per_round": 2, "malicious": 0.2, "selection": "fixed"},
            "at least per_round=3",
        ),
    ],
)
def test_an_attack_that_can_never_happen_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        validate(Spec(attack=(Part("badnets"),), **fields))
    validate(Spec(**fields))  # without an attack there is nothing to happen


def test_the_smallest_cohort_that_is_named_holds_an_attacker() -> None:
    for clients in range(2, 30):
        for present in range(1, clients):
            least = -(-clients // (2 * present))
            assert attackers_in_cohort(clients, least, present) >= 1
            assert least == 1 or not attackers_in_cohort(clients, least - 1, present)


def test_none_is_the_empty_chain_for_set_too() -> None:
    attacked = Spec(attack=(Part("badnets"),), defense=(Part("median"),))
    assert change_spec(attacked, "attack", parse_value("none")).attack == ()
    assert change_spec(attacked, "defense", parse_value("none")).defense == ()
