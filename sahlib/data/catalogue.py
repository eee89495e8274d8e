"""Catalogue: where the public sets come from, on what terms, and how they must lie on disk; facts, no reading.

The facts are in catalogue.toml. `docs/datasets.md` is the same in one table; after a change write it anew:

    python -c "from sahlib.data import catalogue; print(catalogue.page(), end='')" > docs/datasets.md
"""

from __future__ import annotations

import shlex
import textwrap
import tomllib
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from sahlib.study import StudyError

NOT_VERIFIED = "not verified"
KEY_WIDTH = 13


@dataclass(frozen=True)
class Fact:
    """A statement and the page or DOI it is from, or NOT_VERIFIED; "" where it is this project's own rule."""

    text: str
    source: str = ""


OWN = Fact("yours")


@dataclass(frozen=True)
class Archive:
    """One file to download: its name, where it is, its checksum as "algorithm:digest", and its length in bytes."""

    file: str
    url: str
    checksum: str
    size: int


@dataclass(frozen=True)
class PublicSet:
    """What there is to know before a set is used.

    name        as in Study.dataset
    access      what to do to get it, in whole sentences: what to open, sign or install
    layout      what the reader expects below the folder given as --data-dir
    unverified  what could not be checked at its source, in whole sentences
    archive     what is fetched for the user; None where the set must be fetched by hand
    options     what the command that reads it takes beside the name and the folder
    """

    name: str
    title: Fact
    labels: Fact
    layout: Fact
    licence: Fact = OWN
    access: Fact = OWN
    citation: Fact = OWN
    size: Fact = OWN
    unverified: tuple[str, ...] = ()
    archive: Archive | None = None
    options: str = ""


def _record(value: dict | list | str) -> Fact | Archive | tuple | str:
    """What a value of catalogue.toml becomes in a PublicSet."""
    if isinstance(value, dict):
        return Fact(**value) if "text" in value else Archive(**value)
    return tuple(value) if isinstance(value, list) else value


CATALOGUE = {
    name: PublicSet(name, **{key: _record(value) for key, value in told.items()})
    for name, told in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8")).items()
}


def find(name: str) -> PublicSet:
    """The set of that name; StudyError for a name that is none."""
    if name not in CATALOGUE:
        raise StudyError(f"{name!r} is no set of the catalogue; there are {', '.join(CATALOGUE)}.")
    return CATALOGUE[name]


def next_command(chosen: PublicSet, folder: str = "DIR") -> str:
    """What to type to run the study on a set that lies in `folder`."""
    return f"./run_all.sh --dataset {chosen.name} --data-dir {shlex.quote(folder)} {chosen.options}".rstrip()


def listing() -> str:
    """One line per set: its name, whether it is fetched for you, and what it is."""
    lines = ""
    for s in CATALOGUE.values():
        way = "open" if s.archive else "yours" if s.access == OWN else "by hand"
        lines += f"{s.name:<15}{way:<9}{s.title.text}\n"
    return f"{lines}\n./run_all.sh data NAME says more; the built-in phantom needs nothing from anywhere."


def describe(chosen: PublicSet) -> str:
    """All that is known of a set, for the command line, 100 columns wide."""
    rows = [("from", chosen.title.source)] if chosen.title.source else []
    facts = [(key, getattr(chosen, key)) for key in ("licence", "access", "citation", "size", "labels", "layout")]
    rows += [(key, f"{fact.text} ({fact.source})" if fact.source else fact.text) for key, fact in facts if fact != OWN]
    rows += [("not checked", sentence) for sentence in chosen.unverified] + [("next", next_command(chosen))]
    lines = [f"{chosen.name}: {chosen.title.text}"]
    for key, text in rows:
        wrapped = textwrap.wrap(text, 100 - KEY_WIDTH, break_long_words=False, break_on_hyphens=False)
        lines += [f"{start:<{KEY_WIDTH}}{line}" for start, line in zip_longest([key], wrapped, fillvalue="")]
    return "\n".join(lines)


def page() -> str:
    """docs/datasets.md, Markdown: every set in one table, then what could not be verified."""
    sets = CATALOGUE.values()
    rows = [["set", "what", "licence", "how to get it", "size", "labels", "layout below `--data-dir`"], ["---"] * 7]
    rows += [[f"`{s.name}`", *map(_cell, (s.title, s.licence, s.access, s.size, s.labels, s.layout))] for s in sets]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    cite = "\n".join(f"- `{s.name}`: {s.citation.text}." for s in sets if s.citation != OWN)
    unverified = "\n".join(f"- `{s.name}`: {sentence}" for s in sets for sentence in s.unverified)
    return f"""# Datasets

Nothing is redistributed here. `./run_all.sh data NAME` prints a row of this table with its sources
and the command to run next; `./run_all.sh data NAME --to DIR` fetches a set whose licence is open.
`sahlib/data/catalogue.py` writes this page.

{table}

## To cite

{cite}

## Not verified

{unverified}
"""


def _cell(fact: Fact) -> str:
    text = fact.text.replace("|", "\\|")
    if not fact.source or fact.text == fact.source:
        return text
    return f"{text} ({NOT_VERIFIED})" if fact.source == NOT_VERIFIED else f"{text} ([source]({fact.source}))"
