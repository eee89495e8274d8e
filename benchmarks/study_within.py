"""As much of a study as fits into a time: trainings in the order of their worth, then every figure of what there is.

    python benchmarks/study_within.py --seconds 440 --output FOLDER --missing FOLDER/missing.md

First the paper's two networks under the study's own recipe, tried whatever is foretold, for without them nothing can be
drawn; then the other networks, then the further recipes one by one; of each the first seed. How long a training takes
is foretold from a few timed steps, and corrected by those that are done; what does not fit is not begun. The study is
then that of the networks and recipes that are complete, and `missing` names the others. A second call goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sahlib import reproduce
from sahlib.chapters import forecast, results
from sahlib.study import Study, name_of
from sahlib.workspace import Workspace, writing

PAIR = ("unet", "attention_unet")


def blocks(study: Study) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(recipe, networks) in the order of their worth; each is complete or does not count."""
    yield study.recipe, PAIR
    yield from ((study.recipe, (model,)) for model in study.models if model not in PAIR)
    yield from ((recipe, study.models) for recipe in study.further_recipes if recipe != study.recipe)


def trained_by(ends: float, study: Study, workspace: Workspace) -> tuple[list[str], list[str], list[str]]:
    """(networks, further recipes, what is missing) after as many blocks as are done at time.monotonic() `ends`."""
    store, split = results.load_data(study, workspace)
    correction = 1.0  # seconds that the last block took over those foretold
    complete, recipes, missing = [], [], []
    for recipe, models in blocks(study):
        own = recipe == study.recipe
        wanted = models if own else complete  # a recipe counts with the networks that there are
        part = replace(
            study, models=tuple(dict.fromkeys((*complete, *PAIR, *wanted))), further_recipes=() if own else (recipe,)
        )
        counts = {model: forecast.untrained(part, store, split, model, workspace.runs) for model in wanted}
        foretold = sum(n * forecast.seconds(study, store, split, model) for model, n in counts.items() if n)
        left = ends - time.monotonic()
        fits = models is PAIR or foretold * correction <= left
        name = f"{', '.join(name_of(model) for model in wanted)} under the recipe {recipe}"
        spans = f"about {forecast.spelt(foretold * correction)} of {forecast.spelt(max(0.0, left))}"
        print(f"{name}: {spans}, {'begins' if fits else 'left out'}", flush=True)
        if not fits:
            missing.append(name)
            continue
        began = time.monotonic()
        results.train(part, store, split, wanted, workspace)
        if foretold:
            correction = (time.monotonic() - began) / foretold
        complete, recipes = ([*complete, *models], recipes) if own else (complete, [*recipes, recipe])
    return complete, recipes, missing


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="As much of a study on the phantom as fits into a time.")
    parser.add_argument("--seconds", type=float, required=True, help="in all")
    parser.add_argument("--figures", type=float, default=100, help="seconds of them kept back for the notebooks")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--output", required=True, help="where data/, runs/ and paper_figures/ go")
    parser.add_argument("--missing", type=Path, required=True, help="the file that names what did not fit")
    chosen = parser.parse_args(arguments)
    ends = time.monotonic() + chosen.seconds - chosen.figures
    whole = Study.of_profile(chosen.profile)
    study = replace(whole, seeds=whole.seeds[:1])
    complete, recipes, missing = trained_by(ends, study, Workspace(chosen.output))
    missing += [f"seeds {', '.join(map(str, whole.seeds[1:]))}"] * (len(whole.seeds) > 1)
    said = ["Left out of this study for lack of time:", "", *(f"- {one}" for one in missing)]
    with writing(chosen.missing) as file:
        file.write_text("\n".join(said) if missing else "Nothing was left out of this study.")
    changes = {"models": [model for model in study.models if model in complete]}
    changes |= {"seeds": list(study.seeds), "further_recipes": recipes}
    return reproduce.run(study.profile, chosen.output, changes)


if __name__ == "__main__":
    raise SystemExit(main())
