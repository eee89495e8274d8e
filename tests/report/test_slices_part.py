"""The slices in a page: what fits, and nothing that a page from a mail could load or be broken by."""

import json

import numpy as np
from bs4 import BeautifulSoup
from helpers.fabricated import a_run, a_split, a_store, labels_of, results_of

from sahlib.browser import embedded
from sahlib.report import slices_part


def made(tmp_path, slices):
    """Results of one network on slices of noise, which nothing compresses."""
    labels = labels_of([9] * slices, size=64)
    images = np.random.default_rng(0).integers(0, 256, (slices, 64, 64)).astype(np.uint8)
    store = a_store(tmp_path, labels, [f"P{k // 10}" for k in range(slices)], [images])
    split = a_split(store)
    return results_of(store, split, {"unet": [a_run(tmp_path, store, split, "unet", {"SAH": labels * 0.75})]})


def test_slices_are_held_as_far_as_the_page_has_room(tmp_path, monkeypatch):
    results, page = made(tmp_path, 40), f"<main>{slices_part.PLACE}</main>"
    whole = slices_part.with_slices(page, lambda room: embedded.of_results(results, room))
    assert "30 of 40 slices: those of the patients of Figure 7" in whole  # three patients; of equal Dice, the first
    monkeypatch.setattr(slices_part, "MOST_BYTES", slices_part.FRAME + 60_000)
    less = slices_part.with_slices(page, lambda room: embedded.of_results(results, room))
    held = json.loads(BeautifulSoup(less, "html.parser").find(id="viewer-slices").string)
    assert 5 < len(held["slices"]) < 20 and len(held["index"]["slices"]) == len(held["slices"])
    data = sum(len(text) for _, text in held["slices"])
    assert data <= 60_000


def test_it_loads_nothing_and_keeps_a_picture_for_where_no_script_runs(tmp_path):
    page = slices_part.with_slices(slices_part.PLACE, lambda room: embedded.of_results(made(tmp_path, 3), room))
    found = BeautifulSoup(page, "html.parser")
    data, module = found.find_all("script")
    assert (data["type"], module["type"]) == ("application/json", "module")
    assert not any(tag.has_attr("src") for tag in (data, module)) and "import " not in module.string
    (image,) = found.find_all("img")
    assert image["src"].startswith("data:image/png;base64,") and image["alt"].startswith("Slice browser at slice")
