"""What somebody says of a federation that is to be defended: a TOML file, or options of the same
names.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from backstop.platform.declarations.facts import Kind
from backstop.platform.params import BadInput, Parameter, Range, check, declare, nearest
from backstop.platform.specs.part import Scalar, parse_value

HUGE = 10**9
SHARE_RANGE = Range(0, 1)
ABOVE_0 = Range(0, HUGE, low_open=True)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The federation, what its server may do, what is feared, and what may be paid."""

    data: Annotated[
        str | None,
        "your data, e.g. table(path=clients/hospital_*.csv, label=outcome); none: a stand-in of the"
        " kind below",
    ] = None
    data_dir: Annotated[
        str | None, "the folder that the paths are in; in a file, relative to that file"
    ] = None
    kind: Annotated[Kind, "without data: what the stand-in is"] = "table"
    model: Annotated[
        str | None, "a model of the platform, or nets.py:Net; none: a small one for the data"
    ] = None
    clients: Annotated[
        int | None,
        Range(2, HUGE),
        "how many there are; none: as many as the data or sizes have",
    ] = None
    sizes: Annotated[
        str | None, "samples that each client has, joined by commas, where the data does not say"
    ] = None
    skew: Annotated[
        float | Literal["auto", "natural", "shards"] | None,
        ABOVE_0,
        "how labels are spread; a number: Dirichlet concentration; none: evenly; auto: as the data"
        " or sizes say",
    ] = "auto"
    per_round: Annotated[
        int | None, Range(1, HUGE), "clients in a round; none: all, 20 at most"
    ] = None
    rounds: Annotated[int, Range(1, HUGE), "rounds of training"] = 30
    local_epochs: Annotated[int, Range(1, HUGE), "passes over its samples in a round"] = 2
    batch: Annotated[int, Range(1, HUGE), "samples in a step"] = 16
    learning_rate: Annotated[float | None, ABOVE_0, "of SGD; none: the kind's"] = None
    attackers: Annotated[int, Range(1, HUGE), "malicious clients that are feared, of all"] = 1
    server_samples: Annotated[
        int, Range(0, HUGE), "clean labeled samples on the server, held out of the data"
    ] = 0
    clients_train_differently: Annotated[
        bool, "whether honest clients can be asked to train another way"
    ] = False
    secure_aggregation: Annotated[bool, "whether the server sees nothing but sums"] = False
    accuracy_to_lose: Annotated[float, SHARE_RANGE, "accuracy that a defense may cost"] = 0.02
    success_to_bear: Annotated[
        float, SHARE_RANGE, "share of triggered inputs that the worst attack may turn"
    ] = 0.1
    server_seconds: Annotated[
        float | None, ABOVE_0, "seconds that the server has for a defense in a round; none: any"
    ] = None
    only: Annotated[
        str | None, "defenses to look at, joined by commas; none: all that can be used"
    ] = None


@lru_cache
def questions() -> dict[str, Parameter]:
    """What can be said, by name."""
    hints = get_type_hints(Situation, include_extras=True)
    return {
        item.name: declare(item.name, hints[item.name], item.default) for item in fields(Situation)
    }


def read_situation(file: str | None, options: Mapping[str, str | None]) -> Situation:
    """What a file says, and what options say instead. Raises BadInput for what cannot be."""
    said = _from_file(file) if file is not None else {}
    for name, text in options.items():
        if text is not None:
            said[name] = _checked(name, parse_value(text), f"--{name.replace('_', '-')}")
    situation = Situation(**said)
    _check_sense(situation)
    return situation


def client_sizes(situation: Situation) -> list[int]:
    """The sizes that were given; none where they were not."""
    if situation.sizes is None:
        return []
    words = [word.strip() for word in situation.sizes.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise BadInput(
            f"sizes={situation.sizes!r} is not allowed; integers of at least 1 joined by commas,"
            " such as 420,130,88"
        )
    return [int(word) for word in words]


def _from_file(file: str) -> dict[str, Any]:
    path = Path(file)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(
            f"{file}: {error.strerror or error}; backstop advise --example prints one to begin with"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is not TOML: {error}") from None
    said = {name: _checked(name, value, file) for name, value in content.items()}
    if said.get("data_dir") is not None:
        said["data_dir"] = str(path.parent / Path(str(said["data_dir"])).expanduser())
    return said


def _checked(
    name: str,
    value: Any,
    where: str,
) -> Scalar:
    """What was said to one question, or BadInput."""
    known = questions()
    if name not in known:
        raise BadInput(f"{where}: unknown name {name!r}; {nearest(name, known)}")
    if name == "sizes" and isinstance(value, (list, int)) and not isinstance(value, bool):
        value = ",".join(map(str, value if isinstance(value, list) else [value]))
    if value == "none" and type(None) in known[name].types:
        value = None
    checked: Scalar = check(known[name], value, where)
    return checked


def _check_sense(said: Situation) -> None:
    """Raises BadInput for answers that cannot all be true."""
    sizes = client_sizes(said)
    if sizes and said.data is not None:
        raise BadInput("data and sizes are both given; the data says how large its clients are")
    if sizes and said.clients not in (None, len(sizes)):
        raise BadInput(f"clients={said.clients}, but sizes has {len(sizes)} of them; give one")
    if sizes and said.skew != "auto":
        raise BadInput("sizes and skew are both given; a split has one of them, so give one")
    if not sizes and said.data is None and said.clients is None:
        raise BadInput(
            "neither data nor clients nor sizes is given; say how many clients there are, such as"
            " --clients 8 (backstop advise --example prints a file to fill in)"
        )
    if said.skew == "natural" and said.data is None:
        raise BadInput("skew=natural keeps the clients of your data, and no data is given")
    if said.clients is not None:
        check_counts(said, said.clients)
    elif sizes:
        check_counts(said, len(sizes))


def check_counts(said: Situation, clients: int) -> None:
    """Raises BadInput where there are more attackers, or more clients in a round, than clients."""
    if said.attackers >= clients:
        raise BadInput(
            f"attackers={said.attackers} of clients={clients} leaves nobody honest;"
            f" at most {clients - 1}"
        )
    if said.per_round is not None and said.per_round > clients:
        raise BadInput(
            f"per_round={said.per_round} is more than clients={clients}; at most all take part"
        )


EXAMPLE_VALUES: dict[str, Scalar] = {  # what stands in the example instead of a default
    "data": "table(path=clients/hospital_*.csv, label=outcome)",
    "data_dir": ".",
    "server_seconds": 1.0,
}


def example() -> str:
    """A file to fill in: every name with what it means, those that may be left out commented."""
    return "\n".join(_example_lines())


def _example_lines() -> Iterator[str]:
    yield "# Which defense for us?   backstop advise THIS_FILE"
    yield "# A line that is left out, or begins with #, has the default that it shows."
    for name, question in questions().items():
        yield ""
        yield f"# {question.text}; {question.allowed}"
        if name in EXAMPLE_VALUES:
            yield f"{name} = {_toml(EXAMPLE_VALUES[name])}"
        else:
            yield f"# {name} = {_toml(question.default)}"


def _toml(value: Scalar) -> str:
    match value:
        case None:
            return '"none"'
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case _:
            return str(value)


def said_values(situation: Situation) -> dict[str, Scalar]:
    """What was said, or left at its default, by name."""
    return dataclasses.asdict(situation)
