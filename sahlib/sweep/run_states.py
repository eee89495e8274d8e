"""What runs there are in a workspace, and how far each is.

It reads what lies on disk and waits for nobody, and writes nothing.
"""

from __future__ import annotations

import fcntl
import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from safetensors import SafetensorError, safe_open

from sahlib.scoring import metrics
from sahlib.study import MODELS, Study, StudyError, digest
from sahlib.training import recipes, runs

TRAINING, FAILED, INTERRUPTED, TRAINED, TESTED = "training", "failed", "interrupted", "trained", "tested"
# What of a run's recipe may differ within a row, and what within rows that are to be compared.
WITHIN_ROW = ("split", "seed")
WITHIN_GROUP = (*WITHIN_ROW, "model", "learning_rate")
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
        return MODELS.get(self.model, self.model)

    @property
    def seed(self) -> int:
        return self.record["seed"]

    @property
    def recipe(self) -> str:
        """One of RECIPES."""
        return recipes.name_of(
            Study(prior_bias=self.setting("prior_bias"), learning_rate=self.setting("learning_rate"))
        )

    @property
    def row(self) -> str:
        """Equal for runs that belong into one row."""
        return self._digest(WITHIN_ROW)

    @property
    def group(self) -> str:
        """Equal for rows that differ in nothing but the network and its learning rate."""
        return self._digest(WITHIN_GROUP)

    def _digest(self, free: tuple[str, ...]) -> str:
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
    paths = [path for dataset in _folders(folder) for model in _folders(dataset) for path in _folders(model)]
    return [seen for path in paths if path.name.startswith("seed") and (seen := _look(path))]


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(inside for inside in path.iterdir() if inside.is_dir())
    except OSError:  # it has gone, or is not for us to read
        return []


def _look(path: Path) -> Seen | None:
    """The run in a folder, or None where nothing of one is there."""
    try:
        record, seen = _record(path / "run.json"), None
        if record is None:
            seen = _unfinished(path)
            # A training that has ended meanwhile wrote it before it let go of its lock.
            record = _record(path / "run.json")
        return seen if record is None else _finished(path, record)
    except StudyError as error:
        return Seen(path, {}, FAILED, str(error))
    except OSError as error:
        return Seen(path, {}, FAILED, f"It cannot be read ({error.strerror}).")


def _finished(path: Path, record: dict) -> Seen:
    try:
        counts = _counts(path, record)
    except StudyError as error:
        return Seen(path, record, FAILED, str(error))
    return Seen(path, record, TRAINED) if counts is None else Seen(path, record, TESTED, counts=counts)


def _unfinished(path: Path) -> Seen | None:
    record, (epochs, damage) = _record(path / runs.BEGUN), _epochs(path / "state.safetensors")
    # What a training leaves of its end is looked for after its lock, before which it is written.
    held, failure = _is_held(path / ".lock"), _text(path / runs.FAILED)
    if record is None and failure is None and epochs is None:
        return None
    record = record or {}
    done = f"{epochs or 0} of {record['recipe'].get('epochs', '?')} epochs" if record else f"{epochs or 0} epochs"
    if held:
        return Seen(path, record, TRAINING, f"{done} done.")
    if failure is not None:
        return Seen(path, record, FAILED, " ".join(failure.split()))
    return Seen(path, record, INTERRUPTED, damage or f"After {done}; the same command goes on from there.")


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _record(path: Path) -> dict | None:
    """run.json or begun.json; None where there is none, StudyError where it is damaged."""
    text = _text(path)
    if text is None:
        return None
    try:
        record = json.loads(text)
    except ValueError:
        record = None
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("seed"), int)
        or not isinstance(record.get("recipe"), dict)
        or not isinstance(record.get("study", {}), dict)
    ):
        raise StudyError(f"Its {path.name} is damaged; delete the folder and train again.")
    return record


def _counts(path: Path, record: dict) -> pd.DataFrame | None:
    """counts.csv; None where there is none, StudyError where it is damaged."""
    try:
        counts = runs.Run(path, {"lesions": [""], **record}).counts  # the first lesion's, whatever it is called
    except FileNotFoundError:
        return None
    except ValueError:
        counts = pd.DataFrame()
    counts = counts.reindex(columns=["slice_id", "patient_id", *metrics.COUNTS])
    pixels = all(pd.api.types.is_integer_dtype(counts[name]) for name in metrics.COUNTS)
    if counts.empty or not pixels or counts[["slice_id", "patient_id"]].isna().any(axis=None):
        raise StudyError("Its counts.csv is damaged; delete that file and test again.")
    return counts


def _epochs(state: Path) -> tuple[int | None, str]:
    """(whole epochs in a saved state, of which only the header is read; what is wrong with it)."""
    try:
        with safe_open(state, "np") as file:
            return len(json.loads(file.metadata()["history"])), ""
    except FileNotFoundError:
        return None, ""
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return 0, f"Its saved state is damaged; delete {state.name} to train from the start."


def _is_held(lock: Path) -> bool:
    """Whether a process holds a lock file (paths.alone_in); never waits, and never makes the file.

    It is tried as a reader's, so that two looks at a time do not take each other for a training.
    """
    try:
        file = open(lock, "rb")  # noqa: SIM115 (closed below)
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:  # held; or such locks are unknown here, and then the file itself is the lock
            return True
    return False
