"""Catalogue: where the public sets come from, on what terms, and how they must lie on disk, read from catalogue.toml.

`docs/datasets.md` is the same in one table; after a change there write it anew:

    python -c "from sahlib.data import catalogue; print(catalogue.page(), end='')" > docs/datasets.md
"""

from __future__ import annotations

import shlex
import textwrap
import tomllib
from dataclasses import dataclass
from importlib import resources

from sahlib.study import StudyError

NOT_VERIFIED = "not verified"
PAGE = """\
# Datasets

Nothing is redistributed here. `./run_all.sh data NAME` prints a row of this table with its sources
and the command to run next; `./run_all.sh data NAME --to DIR` fetches a set whose licence is open.
`sahlib/data/catalogue.py` writes this page.

| set | what | licence | how to get it | size | labels | layout below `--data-dir` |
| --- | --- | --- | --- | --- | --- | --- |
{table}

## To cite

{cite}

## Not verified

{unverified}
"""


@dataclass(frozen=True)
class Fact:
    """A statement and the page or DOI it is from, or NOT_VERIFIED; "" where it is this project's own rule."""

    text: str
    source: str = ""


OWN = Fact("yours")


@dataclass(frozen=True)
class Archive:
    """One file to download: its name, where it is, "algorithm:digest" as pooch takes it, and its length in bytes."""

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


def _read() -> tuple[PublicSet, ...]:
    made = {"archive": lambda archive: Archive(**archive), "unverified": tuple, "options": str}
    content = tomllib.loads((resources.files("sahlib.data") / "catalogue.toml").read_text("utf-8"))
    return tuple(
        PublicSet(name, **{key: made.get(key, lambda fact: Fact(*fact))(own) for key, own in facts.items()})
        for name, facts in content.items()
    )


CATALOGUE = _read()


def find(name: str) -> PublicSet:
    """The set of that name; StudyError for a name that is none."""
    for candidate in CATALOGUE:
        if candidate.name == name:
            return candidate
    raise StudyError(f"{name!r} is no set of the catalogue; there are {', '.join(s.name for s in CATALOGUE)}.")


def next_command(chosen: PublicSet, folder: str = "DIR") -> str:
    """What to type to run the study on a set that lies in `folder`."""
    return f"./run_all.sh --dataset {chosen.name} --data-dir {shlex.quote(folder)} {chosen.options}".rstrip()


def listing() -> str:
    """One line per set: its name, whether it is fetched for you, and what it is."""
    lines = []
    for s in CATALOGUE:
        way = "open" if s.archive else "yours" if s.access == OWN else "by hand"
        lines.append(f"{s.name:<15}{way:<9}{s.title.text}\n")
    return f"{''.join(lines)}\n./run_all.sh data NAME says more; the built-in phantom needs nothing from anywhere."


def describe(chosen: PublicSet) -> str:
    """All that is known of a set, for the command line, 100 columns wide."""
    rows = [("from", chosen.title.source)] if chosen.title.source else []
    for key in ("licence", "access", "citation", "size", "labels", "layout"):
        fact = getattr(chosen, key)
        if fact != OWN:
            rows.append((key, f"{fact.text} ({fact.source})" if fact.source else fact.text))
    rows += [("not checked", sentence) for sentence in chosen.unverified] + [("next", next_command(chosen))]
    as_is = {"break_long_words": False, "break_on_hyphens": False}
    wrapped = [
        textwrap.fill(text, 100, initial_indent=f"{key:<13}", subsequent_indent=" " * 13, **as_is) for key, text in rows
    ]
    return "\n".join([f"{chosen.name}: {chosen.title.text}", *wrapped])


def page() -> str:
    """docs/datasets.md, Markdown: every set in one table, then what could not be verified."""
    rows = []
    for s in CATALOGUE:
        cells = map(_cell, (s.title, s.licence, s.access, s.size, s.labels, s.layout))
        rows.append(f"| `{s.name}` | {' | '.join(cells)} |")
    cite = [f"- `{s.name}`: {s.citation.text}." for s in CATALOGUE if s.citation != OWN]
    unverified = [f"- `{s.name}`: {sentence}" for s in CATALOGUE for sentence in s.unverified]
    return PAGE.format(table="\n".join(rows), cite="\n".join(cite), unverified="\n".join(unverified))


def _cell(fact: Fact) -> str:
    text = fact.text.replace("|", "\\|")
    if not fact.source or fact.text == fact.source:
        return text
    return f"{text} ({NOT_VERIFIED})" if fact.source == NOT_VERIFIED else f"{text} ([source]({fact.source}))"
