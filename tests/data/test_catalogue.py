"""The catalogue says where every fact is from, and docs/datasets.md is made of it."""

import dataclasses
import re

import pytest

from sahlib.data import catalogue
from sahlib.data.catalogue import CATALOGUE, NOT_VERIFIED, OWN, Fact
from sahlib.study import DATASETS
from sahlib.workspace import PROJECT

SETS = list(CATALOGUE.values())
PUBLIC = [s for s in SETS if s.access != OWN]


def facts(chosen):
    return [value for field in dataclasses.fields(chosen) if isinstance(value := getattr(chosen, field.name), Fact)]


def test_every_dataset_of_a_study_but_the_phantom_is_there_once():
    assert sorted(CATALOGUE) == sorted(set(DATASETS) - {"phantom"})


@pytest.mark.parametrize("chosen", PUBLIC, ids=lambda s: s.name)
def test_every_fact_has_a_source_or_says_that_it_has_none(chosen):
    for fact in facts(chosen):
        assert fact.source == NOT_VERIFIED or fact.source.startswith("https://"), fact
        assert fact.text and "\n" not in fact.text and "\n" not in fact.source
    if any(fact.source == NOT_VERIFIED for fact in facts(chosen)):
        assert chosen.unverified
    assert all(sentence.endswith(".") for sentence in (*chosen.unverified, chosen.access.text))


def test_only_open_licences_are_fetched_and_only_with_a_checksum():
    fetched = [s for s in SETS if s.archive]
    assert [s.name for s in fetched] == ["rhuh_sah"]
    for chosen in fetched:
        assert chosen.licence.text == "CC BY 4.0"
        assert chosen.archive.url.startswith("https://") and chosen.archive.file in chosen.archive.url
        assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", chosen.archive.checksum)
        assert f"{chosen.archive.size:,} bytes" in chosen.size.text


@pytest.mark.parametrize("chosen", SETS, ids=lambda s: s.name)
def test_a_description_holds_every_fact_and_fits_a_terminal(chosen):
    said = catalogue.describe(chosen)
    together = " ".join(said.split())
    for fact in facts(chosen):
        if fact != OWN:
            assert fact.text in together and fact.source in together
    assert all(sentence in together for sentence in chosen.unverified)
    assert f"./run_all.sh --dataset {chosen.name} --data-dir DIR" in said
    assert max(map(len, said.splitlines()[1:])) <= 100


def test_the_listing_is_one_line_each():
    lines = catalogue.listing().splitlines()
    assert [line.split()[0] for line in lines[: len(CATALOGUE)]] == list(CATALOGUE)
    assert "open" in lines[0] and "by hand" in lines[1] and "yours" in lines[len(CATALOGUE) - 1]


def test_a_folder_with_spaces_is_quoted():
    assert catalogue.next_command(catalogue.find("ct_ich"), "/my data") == (
        "./run_all.sh --dataset ct_ich --data-dir '/my data'"
    )


def test_the_page_in_docs_is_that_of_the_catalogue():
    written = (PROJECT / "docs" / "datasets.md").read_text(encoding="utf-8")
    assert written == catalogue.page(), "write docs/datasets.md anew; sahlib/data/catalogue.py says how"
