"""What a paper printed and claims, read from a YAML file; docs/claims.md tells how one is written.

    paper = read(Path("claims.yaml"))
    paper.value("dice", "U-Net")

Numbers are as printed, claims in the words of whoever wrote the file. Nothing here says whether one is right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from sahlib.scoring import metrics
from sahlib.scoring.intervals import TERCILES
from sahlib.study import StudyError, name_of

# Kind of a measure -> what it needs.
KINDS = {
    "difference": ("higher", "than", "score"),
    "accuracy": ("networks", "score"),
    "complementary": ("of", "words"),
    "each run": ("networks", "curve", "words"),
    "runs compared": ("higher", "than", "curve", "words"),
    "printed": ("higher", "than", "words"),
    "contradiction": ("words",),
    "unknowable": ("words",),
}
ABOUT = ("training", "samples", "test set", "control")
# How a claim may be written in one line.
SHORT = re.compile(r"(?P<higher>.+) beats (?P<than>.+) in (?P<score>\w+)(?: on (?P<lesions>\w+) lesions)?")
REACHES = re.compile(r"(?P<network>.+) reaches (?P<least>[01]?\.\d+) in (?P<score>\w+)")
UNTOLD = "sah_slices"  # the convention of a score for which none is told: no empty slice can flatter it


@dataclass(frozen=True)
class Network:
    """A network that the paper compares.

    stands_for  what may stand for it among the predictors at hand; the first that is there does
    beside      the predictors that a table shows beside its printed numbers
    """

    stands_for: tuple[str, ...]
    beside: tuple[str, ...]


@dataclass(frozen=True)
class Measure:
    """How a claim is decided; `kind` is one of KINDS.

    words      what is measured, or why nothing can be; "{NETWORK}" is the name of what stands for that network
    score      of a difference, under `convention`, on the slices with `lesions` of a third of the sizes (all if "")
    higher, than   networks, or predictors: a difference is higher minus than, positive if the claim is right
    networks   all that "each run" and "accuracy" look at
    of         of "complementary": the claims that tell who leads
    curve      one of training.curves.numbers, and `name` what it is called before its values
    least      "accuracy": the score that each network shall reach; 0 for rules.GOOD_DICE
    limit      "each run" shows the claim where its number is no further from 0; "end_level" is taken relative to `than`
    """

    kind: str
    words: str
    score: str = ""
    convention: str = ""
    lesions: str = ""
    higher: str = ""
    than: str = ""
    networks: tuple[str, ...] = ()
    of: tuple[str, ...] = ()
    curve: str = ""
    name: str = ""
    least: float = 0.0
    limit: float = 0.0

    @property
    def arms(self) -> tuple[str, ...]:
        """The networks or predictors that it takes, those that shall be higher first."""
        return tuple(filter(None, (*self.networks, self.higher, self.than)))


@dataclass(frozen=True)
class Claim:
    """Something the paper says, in our words; `sections`: every place that says it; `about`: one of ABOUT."""

    says: str
    measure: Measure
    sections: tuple[str, ...] = ()
    about: str = "test set"


@dataclass(frozen=True)
class Contradiction:
    """A place where the paper's numbers or sentences exclude each other."""

    says: str
    sections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One thing the paper says about how it was done, and where."""

    value: object
    section: str


@dataclass(frozen=True)
class SampleTable:
    """A table of single slices: rows[metric][i] belongs to sample i + 1; area_percent is in per cent of the image."""

    number: int
    network: str
    rows: dict[str, tuple[float, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"sample {k}" for k in range(1, len(next(iter(self.rows.values()))) + 1))

    def value(self, metric: str, column: str) -> float:
        """The printed number; KeyError or ValueError where there is none."""
        return self.rows[metric][self.columns.index(column)]


@dataclass(frozen=True)
class Paper:
    """A paper's printed numbers of its whole test set, and its claims.

    printed      metric -> network -> number, of as many decimals
    conventions  metric -> the convention under which its numbers are read
    slices       of the test set; 0 where they are not told
    controls     what we ask beside the paper's claims, by the same rule
    reading      what is to be said of how the numbers are read
    quotes       (section, network, "test set" or "sample k") -> metric -> number in the running text
    """

    title: str
    networks: dict[str, Network] = field(default_factory=dict)
    printed: dict[str, dict[str, float]] = field(default_factory=dict)
    decimals: int = 3
    conventions: dict[str, str] = field(default_factory=dict)
    slices: int = 0
    claims: dict[str, Claim] = field(default_factory=dict)
    controls: dict[str, Claim] = field(default_factory=dict)
    contradictions: dict[str, Contradiction] = field(default_factory=dict)
    reading: str = ""
    settings: dict[str, Setting] = field(default_factory=dict)
    samples: tuple[SampleTable, ...] = ()
    quotes: dict[tuple[str, str, str], dict[str, float]] = field(default_factory=dict)

    def value(self, metric: str, network: str) -> float:
        """The printed number; KeyError where there is none."""
        return self.printed[metric][network]

    def stand_in(self, arm: str, predictors: Mapping[str, object]) -> str:
        """The predictor that stands for a network of the paper, there or not; what is no network is one itself."""
        if arm not in self.networks:
            return arm
        stands_for = self.networks[arm].stands_for
        return next((name for name in stands_for if name in predictors), stands_for[-1])


def read(path: Path) -> Paper:
    """The paper of a YAML file; StudyError, with the place in the file, for what cannot be meant."""
    if not path.is_file():
        raise StudyError(f"There is no file {path}; name a file of claims, as docs/claims.md shows one.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise StudyError(f"{path} cannot be read as YAML ({why}); docs/claims.md shows how one is written.") from error
    return _Reader(path).paper(content)


@dataclass(frozen=True)
class _Reader:
    path: Path

    def paper(self, content: object) -> Paper:
        known = {
            *("paper", "decimals", "test_set", "networks", "printed", "settings", "samples", "quotes"),
            *("claims", "controls", "contradictions", "reading"),
        }
        content = self.mapping("the file", content, known)
        networks = {name: self.network(name, own) for name, own in self.entries("networks", content).items()}
        printed, conventions = {}, {}
        for metric, own in self.entries("printed", content).items():
            where = f"printed, {metric}"
            if metric not in metrics.METRICS:
                raise self.wrong(where, f"is no score; choose of {', '.join(metrics.METRICS)}")
            own = dict(self.mapping(where, own))
            conventions[metric] = self.convention(where, own.pop("convention", UNTOLD))
            printed[metric] = {network: self.number(f"{where}, {network}", value) for network, value in own.items()}
            networks |= {name: Network((name,), (name,)) for name in own if name not in networks}
        paper = {"conventions": conventions, "networks": networks}
        claims = content.get("claims") or {}
        if isinstance(claims, list):
            claims = {f"claim_{number}": claim for number, claim in enumerate(claims, 1)}
        quotes = content.get("quotes") or []
        claims = {key: self.claim(f"claims, {key}", own, paper) for key, own in claims.items()}
        for key, claim in claims.items():
            for other in claim.measure.of:
                if other not in claims or claims[other].measure.kind != "difference":
                    raise self.wrong(f"claims, {key}, measure", f"is of {other!r}, which is no claim on a difference")
        return Paper(
            title=str(content.get("paper", "")) or self.path.stem,
            printed=printed,
            decimals=int(self.number("decimals", content.get("decimals", 3), 1, 6)),
            slices=int(self.number("test_set, slices", (content.get("test_set") or {}).get("slices", 0), 0, 1e9)),
            claims=claims,
            controls={
                key: self.claim(f"controls, {key}", dict(own) | {"about": "control"}, paper)
                for key, own in self.entries("controls", content).items()
            },
            contradictions={
                key: Contradiction(own["says"], tuple(map(str, own.get("sections", ()))))
                for key, own in self.entries("contradictions", content).items()
                if self.mapping(f"contradictions, {key}", own, {"says", "sections"}, {"says"})
            },
            reading=str(content.get("reading", "")).strip(),
            settings={
                name: Setting(tuple(own["value"]) if isinstance(own["value"], list) else own["value"], own["section"])
                for name, own in self.entries("settings", content).items()
            },
            samples=tuple(
                SampleTable(one["table"], one["network"], {m: tuple(v) for m, v in one["scores"].items()})
                for one in content.get("samples") or []
            ),
            quotes={
                (one["section"], one["network"], one["of"]): {m: v for m, v in one.items() if m in _SCORED}
                for one in quotes
            },
            **paper,
        )

    def network(self, name: str, content: object) -> Network:
        own = self.mapping(f"networks, {name}", content or {}, {"stands_for", "beside"})
        stands_for = tuple(own.get("stands_for", (name,)))
        return Network(stands_for, tuple(own.get("beside", stands_for)))

    def claim(self, where: str, content: object, paper: dict) -> Claim:
        if isinstance(content, str):
            said = content.strip()
            if short := SHORT.fullmatch(said):
                measure = {k: v for k, v in short.groupdict().items() if v}
            elif short := REACHES.fullmatch(said):
                least = float(short["least"])
                measure = {"kind": "accuracy", "networks": [short["network"]], "score": short["score"], "least": least}
            else:
                raise self.wrong(
                    where, "must read 'A beats B in Dice' or 'A reaches 0.85 in Dice', or have says and measure"
                )
            content = {"says": said, "measure": measure}
        own = self.mapping(where, content, {"says", "sections", "about", "measure"}, {"says", "measure"})
        about = own.get("about", "test set")
        if about not in ABOUT:
            raise self.wrong(where, f"is about {about!r}; choose of {', '.join(ABOUT)}")
        measure = self.measure(f"{where}, measure", own["measure"], paper)
        return Claim(str(own["says"]), measure, tuple(map(str, own.get("sections", ()))), about)

    def measure(self, where: str, content: object, paper: dict) -> Measure:
        own = dict(self.mapping(where, content, {"kind", *Measure.__dataclass_fields__}))
        kind = own.pop("kind", "difference")
        if kind not in KINDS:
            raise self.wrong(where, f"is of the kind {kind!r}; choose of {', '.join(KINDS)}")
        if missing := [name for name in KINDS[kind] if name not in own]:
            raise self.wrong(where, f"is of the kind {kind} and lacks {', '.join(missing)}")
        if "score" in own:
            own["score"] = str(own["score"]).lower()
            if own["score"] not in metrics.METRICS:
                raise self.wrong(where, f"is of the score {own['score']!r}; choose of {', '.join(metrics.METRICS)}")
        if own.get("lesions", TERCILES[0]) not in TERCILES:
            raise self.wrong(where, f"is on {own['lesions']} lesions; choose of {', '.join(TERCILES)}")
        if "least" in own:
            self.number(where + ", least", own["least"])
        if kind in ("difference", "accuracy"):
            own.setdefault("convention", paper["conventions"].get(own["score"], UNTOLD))
        if "convention" in own:
            self.convention(where, own["convention"])
        if kind == "difference":
            own.setdefault("words", self.difference(own, paper["networks"]))
        if kind == "accuracy":
            score = f"{metrics.LABELS[own['score']]} ({metrics.CONVENTIONS[own['convention']].label})"
            own.setdefault("words", score + (f", at least {own['least']:g}" if own.get("least") else ""))
        lists = {name: tuple(own[name]) for name in ("networks", "of") if name in own}
        return Measure(kind, **(own | lists))

    @staticmethod
    def difference(own: Mapping, networks: Mapping) -> str:
        """What a difference is of, in words."""
        names = [f"{{{arm}}}" if arm in networks else name_of(arm) for arm in (own["higher"], own["than"])]
        on = f" with a lesion of the {own['lesions']} third" if own.get("lesions") else ""
        score = f"{metrics.LABELS[own['score']]} ({metrics.CONVENTIONS[own['convention']].label})"
        return f"{score}{on}, {names[0]} minus {names[1]}"

    def convention(self, where: str, name: object) -> str:
        if name not in metrics.CONVENTIONS:
            raise self.wrong(where, f"names the convention {name!r}; choose of {', '.join(metrics.CONVENTIONS)}")
        return name

    def number(self, where: str, value: object, least: float = 0, most: float = 1) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.wrong(where, f"is {value!r}; write a number from {least:g} to {most:g}")
        return value

    def entries(self, name: str, content: Mapping) -> Mapping:
        return self.mapping(name, content.get(name) or {})

    def mapping(self, where: str, content: object, known: set = frozenset(), needed: set = frozenset()) -> Mapping:
        if not isinstance(content, Mapping):
            raise self.wrong(where, "must be entries of the form NAME: VALUE")
        if known and (strange := [str(name) for name in content if name not in known]):
            raise self.wrong(where, f"has an unknown entry {strange[0]!r}; known are {', '.join(sorted(known))}")
        if missing := sorted(needed - content.keys()):
            raise self.wrong(where, f"lacks {', '.join(missing)}")
        return content

    def wrong(self, where: str, what: str) -> StudyError:
        return StudyError(f"{self.path}: {where} {what} (docs/claims.md).")


_SCORED = (*metrics.METRICS, "area_percent")
