"""What runs there are in a workspace, and how far each is.

It reads what lies on disk and waits for nobody, and writes nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from safetensors import SafetensorError, safe_open

from sahlib.scoring import metrics
from sahlib.study import Study, StudyError, digest, name_of
from sahlib.training import runs

TRAINING, FAILED, INTERRUPTED, TRAINED, TESTED = "training", "failed", "interrupted", "trained", "tested"
DEFAULTS = Study().as_dict()


@dataclass(frozen=True)
class Seen:
    """One run's folder as it was when looked at.

    record  run.json, or begun.json before there is one; empty where neither can be read
    state   TRAINING, FAILED, INTERRUPTED, TRAINED or TESTED
    remark  what is to be known of that: the error, or the epoch reached
    counts  of the first lesion, one row per test slice; None unless TESTED
    """

    path: Path
    record: dict
    state: str
    remark: str = ""
    counts: pd.DataFrame | None = field(default=None, repr=False, compare=False)

    def setting(self, name: str):
        """A field of the run's recipe or Study, by the Study's default where another version did not write it."""
        study = self.record.get("study", {})
        return self.record["recipe"].get(name, study.get(name, DEFAULTS.get(name)))

    @property
    def dataset(self) -> str:
        return self.path.parent.parent.name

    @property
    def model(self) -> str:
        return self.path.parent.name

    @property
    def network(self) -> str:
        return name_of(self.model)

    @property
    def seed(self) -> int:
        return self.record["seed"]

    @property
    def recipe(self) -> str:
        """One of RECIPES that set no rate by a search, or OWN."""
        return Study(**{name: self.setting(name) for name in ("prior_bias", "learning_rate", "augmentation")}).recipe

    @property
    def row(self) -> str:
        """Equal for runs that differ in nothing but seed and fold."""
        return digest(self.group, self.model, self.setting("learning_rate"))

    @property
    def group(self) -> str:
        """Equal for rows that differ in nothing but the network and its learning rate."""
        free = ("split", "seed", "model", "learning_rate")
        shared = {name: value for name, value in self.record["recipe"].items() if name not in free}
        # All folds share what the split was drawn by; a single split is its own name.
        folds = self.setting("folds")
        partition = (folds, self.setting("split_seed"), self.setting("validation_share"))
        return digest(shared, partition if folds else self.setting("split"), self.dataset, self.recipe)

    @property
    def is_collapsed(self) -> bool:
        return self.counts is not None and metrics.is_collapsed(self.counts)

    @property
    def name(self) -> str:
        """Which run this is, in words and by its folder."""
        where = "/".join(self.path.parts[-3:])
        if not self.record:
            return f"{self.network}, in {where}"
        folds = self.setting("folds")
        fold = f", fold {self.setting('fold')} of {folds}" if folds else ""
        return f"{self.network}, {self.recipe}, seed {self.seed}{fold}, in {where}"


def gather(folder: Path) -> list[Seen]:
    """Every run under the folder `runs` of a workspace, in the order of its path."""
    paths = sorted(folder / name for name in glob.glob("*/*/seed*/", root_dir=folder))
    return [seen for path in paths if (seen := _look(path))]


def _look(path: Path) -> Seen | None:
    """The run in a folder, or None where nothing of one is there."""
    record = None
    try:
        if (record := _record(path / "run.json")) is None:
            record = _record(path / runs.BEGUN)
            epochs = _epochs(path / "state.safetensors")
            # What a training leaves of its end is looked for after its lock, before which it is written.
            held, failure = _is_held(path / ".lock"), _text(path / runs.FAILED)
            if (finished := _record(path / "run.json")) is None:
                return _unfinished(path, record, epochs, held, failure)
            record = finished
        counts = _counts(path / "counts.csv")
    except (StudyError, OSError) as error:
        reason = f"It cannot be read ({error.strerror})." if isinstance(error, OSError) else str(error)
        return Seen(path, record or {}, FAILED, reason)
    return Seen(path, record, TRAINED if counts is None else TESTED, counts=counts)


def _unfinished(path: Path, record: dict | None, epochs: int | None, held: bool, failure: str | None) -> Seen | None:
    """A run without run.json; record, epochs and failure are None where nothing tells them."""
    if record is None and failure is None and epochs is None:
        return None
    done = f"{epochs or 0} of {record['recipe'].get('epochs', '?')} epochs" if record else f"{epochs or 0} epochs"
    if held:
        state, remark = TRAINING, f"{done} done."
    elif failure is not None:
        state, remark = FAILED, " ".join(failure.split())
    else:
        state, remark = INTERRUPTED, f"After {done}; the same command goes on from there."
    return Seen(path, record or {}, state, remark)


def _text(path: Path) -> str | None:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="replace")


def _damaged(path: Path) -> StudyError:
    what = "the folder" if path.suffix == ".json" else "that file"
    return StudyError(f"Its {path.name} is damaged; delete {what} and run again.")


def _record(path: Path) -> dict | None:
    """run.json or begun.json; None where there is none, StudyError where it is damaged."""
    if (text := _text(path)) is None:
        return None
    with contextlib.suppress(ValueError):
        match json.loads(text):
            case {"seed": int(), "recipe": dict()} as record:
                return record
    raise _damaged(path)


def _counts(path: Path) -> pd.DataFrame | None:
    """counts.csv, that of the first lesion; None where there is none, StudyError where it is damaged."""
    kinds = {"slice_id": str, "patient_id": str} | dict.fromkeys(metrics.COUNTS, int)
    try:
        counts = pd.read_csv(path, dtype=kinds, usecols=[*kinds], keep_default_na=False)  # NA may be a name
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(path) from error
    if counts.empty or (counts[["slice_id", "patient_id"]] == "").any(axis=None):
        raise _damaged(path)
    return counts


def _epochs(state: Path) -> int | None:
    """Whole epochs in a saved state, of which only the header is read; None where there is none."""
    try:
        with safe_open(state, "np") as file:
            return len(json.loads(file.metadata()["history"]))
    except FileNotFoundError:
        return None
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise _damaged(state) from error


def _is_held(lock: Path) -> bool:
    """Whether a process holds a lock file (workspace.alone_in); never waits, and never makes the file.

    It is tried as a reader's, so that two looks at a time do not take each other for a training.
    """
    try:
        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # held; or such locks are unknown here, and then the file itself is the lock
        return True
    return False
