"""The slice browser as a person meets it: JupyterLab on loopback in a real Chromium, driven by Playwright.

With SAHLIB_SCREENSHOTS=FOLDER pictures of what was on screen stay there; with SAHLIB_QUICK_OUTPUT=FOLDER, a finished
`quick` run's --output, they show networks that have learned something. docs/browser.png was made so.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pandas as pd
import pytest
from helpers import lab
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from sahlib.data.slices import preprocess
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.data.splits import Split
from sahlib.scoring import metrics
from sahlib.study import Study, digest
from sahlib.training import runs
from sahlib.workspace import NOTEBOOKS

pytestmark = pytest.mark.skipif(not lab.CHROMIUM, reason="no Chromium is installed: apt-get install chromium")

BROWSER = ".sah .sah-panel img"
MOVES = 100
GOAL_MS = 50


def test_notebook_05_in_jupyterlab(tmp_path):
    """Run all, then what a person would touch: the picture and the scores follow, and the console stays silent."""
    quick = os.environ.get("SAHLIB_QUICK_OUTPUT")
    parameters = {"profile": "quick" if quick else "smoke", "output": quick or str(tmp_path / "output"), "changes": {}}
    if not quick:  # two epochs from MONAI's start leave probabilities that a threshold can part; from the prior's, none
        parameters["changes"] = {"further_recipes": []}
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = parameterize_notebook(load_notebook_node(str(NOTEBOOKS / "05_evaluation.ipynb")), parameters)
    nbformat.write(notebook, folder / "05_evaluation.ipynb")
    with lab.jupyterlab(folder, _home(tmp_path)) as address, lab.chromium() as page:
        lab.run_all(page, address, "05_evaluation.ipynb", BROWSER)
        page.locator(".sah").scroll_into_view_if_needed()
        _keep(page, "browser")
        assert page.locator(BROWSER).count() == 5  # CT and four networks

        _changes(page, lambda: _handle(page, "Slice").press("ArrowRight"))
        _changes(page, lambda: _handle(page, "Slice").press("ArrowLeft"))
        _handle(page, "Patient").press("Home")
        _changes(page, lambda: _handle(page, "Patient").press("End"))
        page.get_by_role("button", name="Largest").click()
        _changes(page, lambda: _wheel(page))

        page.get_by_role("button", name="Largest").click()
        scores = page.locator(".sah-note").nth(1)
        before = scores.inner_text()
        for _ in range(40):
            _handle(page, "Threshold").press("ArrowLeft")
        page.wait_for_function("before => document.querySelectorAll('.sah-note')[1].innerText !== before", arg=before)

        for overlay in ("outline", "probability", "errors", "gate"):
            _changes(page, lambda overlay=overlay: page.get_by_label("Networks show").select_option(overlay))
            _keep(page, f"browser_{overlay}")
        page.get_by_label("Networks show").select_option("area")
        _changes(page, lambda: page.get_by_label("Window").select_option("subdural 75/215"))
        page.get_by_text("from the scan").wait_for()
        _keep(page, "browser_subdural")

        page.get_by_role("button", name="Export PNG").click()
        link = page.get_by_role("link", name="Save ")
        link.wait_for()
        data = base64.b64decode(link.get_attribute("href").split(",", 1)[1])
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None
        assert all(page.locator("img").nth(i).get_attribute("alt") for i in range(page.locator("img").count()))
        assert page.problems == []


def test_how_soon_a_slice_of_ten_thousand_is_on_screen(tmp_path, record_property, capsys):
    """From the key to the frame that shows the last of three panels: median of 100 moves."""
    workspace = tmp_path / "workspace"
    first, second = _two_runs_on_many_slices(workspace, slices=10_000, size=256)
    source = (
        "from sahlib import browser\nfrom sahlib.training import runs\nfrom pathlib import Path\n"
        f"browser.browse(*(runs.find(Path(p)) for p in ({str(first)!r}, {str(second)!r})))"
    )
    folder = tmp_path / "notebooks"
    folder.mkdir()
    kernel = load_notebook_node(str(NOTEBOOKS / "05_evaluation.ipynb")).metadata["kernelspec"]
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel}, cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, folder / "many.ipynb")
    try:
        with lab.jupyterlab(folder, _home(tmp_path)) as address, lab.chromium() as page:
            lab.run_all(page, address, "many.ipynb", BROWSER)
            _handle(page, "Slice").focus()
            times = page.evaluate(LATENCY, MOVES)
            assert page.problems == []
    finally:
        shutil.rmtree(workspace)  # 0.7 GB
    median = float(np.median(times))
    record_property("slice_change_ms", median)
    with capsys.disabled():
        print(
            f"\n  slice change: median {median:.1f} ms, 95 % within {np.percentile(times, 95):.1f} ms ({MOVES} moves)"
        )
    assert len(times) == MOVES
    # The goal is for a machine at rest; where others work beside it, several times the goal is still a defect.
    assert median < 5 * GOAL_MS


# Presses a key and waits for the frame after the last of the panels' new pictures has loaded, again and again.
LATENCY = """async moves => {
  const handle = document.activeElement, times = [];
  const panels = () => [...document.querySelectorAll('.sah .sah-panel img')];
  for (let move = 0; move < moves; move++) {
    const before = panels().map(img => img.src), began = performance.now();
    const key = Math.floor(move / 25) % 2 ? 'ArrowRight' : 'ArrowLeft';
    handle.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true, cancelable: true}));
    await new Promise((seen, failed) => {
      const look = () => {
        const now = panels();
        if (now.length === before.length && now.every((img, i) => img.src !== before[i] && img.complete)) return seen();
        if (performance.now() - began > 5000) return failed(new Error('move ' + move + ' shows nothing'));
        requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    });
    times.push(performance.now() - began);
    await new Promise(rest => setTimeout(rest, 40));
  }
  return times;
}"""


def _handle(page, name):
    return page.locator(f".sah .widget-slider:has(.widget-label:text-is('{name}')) .noUi-handle").first


def _changes(page, act):
    """The first network's picture becomes another one."""
    before = page.locator(BROWSER).nth(1).get_attribute("src")
    act()
    page.wait_for_function("before => document.querySelectorAll('.sah .sah-panel img')[1].src !== before", arg=before)


def _wheel(page):
    page.locator(BROWSER).nth(1).hover()
    page.mouse.wheel(0, 120)


def _keep(page, name):
    if os.environ.get("SAHLIB_SCREENSHOTS"):
        page.locator(".sah").screenshot(path=Path(os.environ["SAHLIB_SCREENSHOTS"]) / f"{name}.png")


def _home(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    return home


def _two_runs_on_many_slices(workspace, slices, size):
    """Two finished runs, tested on every slice of a store of one phantom's heads; their folders."""
    study = Study.of_profile("smoke")
    rng = np.random.default_rng(0)
    heads = preprocess(Phantom(1, 0).scan(0), size, [(40, 80)])[0][0]
    y, x = np.mgrid[:size, :size]
    disc = (y - size / 3) ** 2 + (x - size / 2) ** 2 < (size / 10) ** 2
    store = workspace / "data" / "processed" / "phantom-many"
    store.mkdir(parents=True)

    def array(path, dtype, shape):
        return np.lib.format.open_memmap(path, "w+", dtype, shape)

    images, labels = (array(store / f"{name}.npy", np.uint8, (slices, size, size)) for name in ("images", "labels"))
    for start in range(0, slices, len(heads)):
        images[start : start + len(heads)] = heads[: slices - start]
    bleeding = np.arange(slices) < 200
    for row in np.flatnonzero(bleeding):
        labels[row] = disc
    patient = [f"P{row // 50:04d}" for row in range(slices)]
    ids = [f"{p}_{row % 50:02d}" for row, p in enumerate(patient)]
    table = pd.DataFrame({"slice_id": ids, "patient_id": patient, "z": np.arange(slices) % 50, "row_mm": 1.0})
    table = table.assign(column_mm=1.0, thickness_mm=5.0, pixels_SAH=np.where(bleeding, disc.sum(), 0))
    table = table.assign(**{f"pixels_{name}": 0 for name in ("IVH", "IPH", "SDH", "EDH")}, source="")
    table.to_csv(store / "slices.csv", index=False)
    recipe = {"version": 2, "source": {"name": "phantom"}, "size": size, "windows": [[40, 80]]}
    (store / "meta.json").write_text(json.dumps({"digest": "many", "size": size, "recipe": recipe}))
    split = Split(dict.fromkeys(patient, "test"))
    (store / "splits").mkdir()
    pd.Series(split.sides, name="side").rename_axis("patient_id").to_csv(store / "splits" / f"{digest(1)}.csv")

    folders = []
    for model in ("unet", "attention_unet"):
        folder = workspace / "runs" / "phantom" / model / "seed0-many"
        folder.mkdir(parents=True)
        probabilities = array(folder / "probabilities.npy", np.float16, (slices, size, size))
        for row in np.flatnonzero(bleeding):
            probabilities[row] = disc * rng.random()
        counts = metrics.pixel_counts(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 2), bool))
        counts = pd.concat([counts] * slices, ignore_index=True)
        counts.insert(0, "slice_id", ids)
        counts.insert(1, "patient_id", patient)
        counts.to_csv(folder / "counts.csv", index=False)
        record = {"model": model, "seed": 0, "lesions": ["SAH"], "study": study.as_dict()}
        record["recipe"] = {"store": "many", "split": split.digest}
        (folder / "run.json").write_text(json.dumps(record))
        assert runs.find(folder)
        folders.append(folder)
    return folders
