"""Study: every knob of a run, frozen and validated, and the profiles that set them."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

# The name for people of every network that is known here. Two are controls, each another network less one thing:
# "attention_unet_open_gates" is Attention U-Net with its gates held open, "unet_free_output" U-Net without the norm and
# activation that MONAI's UNet puts on its only output channel.
MODELS = {
    "unet": "U-Net",
    "unet_free_output": "U-Net, free output",
    "unet_resnet34": "U-Net (ResNet34)",
    "attention_unet": "Attention U-Net",
    "attention_unet_open_gates": "Attention U-Net, gates open",
    "swin_unetr": "Swin UNETR",
}
# A network of somebody else's: the module and the function in it that makes one.
FOREIGN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
TARGETS = ("SAH", "any", "all")  # one class, all classes as one, or every class of its own
PRECISIONS = ("fp32", "bf16")
CAPTURES = ("auto", "never")
# Level and width in Hounsfield units: common radiology teaching, and what the CT-ICH set was read at.
WINDOWS = {"brain": (40.0, 80.0), "subdural": (75.0, 215.0), "ct_ich": (40.0, 120.0), "bone": (600.0, 2800.0)}
# What is done to pictures that do not tell which way up their heads lie (data/orientation.py).
ORIENTATIONS = (
    "as stored", "mirrored", "flipped", "rot180", "rot90", "rot270", "transposed", "antitransposed", "auto",
)  # fmt: skip
LARGEST_SEED = 2**32 - 1  # that every library takes
# How a network can be trained; each adds to the one before it. "paper" is the paper's to the letter: MONAI's
# initialisation, Adam at 1e-4. "prior" starts the output bias at the log-odds of a lesion pixel. "fair" has a learning
# rate that each network chooses on validation patients (training/rate_search.py). "travels" has the augmentation of
# that name, for scans unlike those of the study. All else is the same. A Study whose own fields are none of these has a
# recipe of its OWN.
OWN = "own"
RECIPES = {
    "paper": "the paper's recipe",
    "prior": "+ prior bias",
    "fair": "+ chosen learning rate",
    "travels": "+ random windows, kernels and poses",
}
CHOOSING = ("fair", "travels")  # the recipes at the learning rate that a network chose under "fair"
# What is done to training slices (training/augment.py): what section 2.2 says, or what other scanners would do.
AUGMENTATIONS = {
    "paper": "flips and rotations",
    "travels": "random windows, grey scales, noise, sharpness, flips, rotations, zooms and shifts",
}
# Every dataset, and what its folder holds, by which it is recognised: the more particular layouts first.
DATASETS = {
    "phantom": "",
    "ct_ich": "ct_scans/, masks/ and hemorrhage_diagnosis_raw_ct.csv",
    "mbh_seg": "folders with image.nii.gz and label_annot_1.nii.gz",
    "bhsd": 'images/ and "ground truths/", or imagesTr/, labelsTr/ and dataset.json',
    "instance2022": "data/ and label/ with NIfTI files",
    "rhuh_sah": "a folder named like subarachnoid_hemorrhage_rhuh with NIfTI files",
    "dicom": "DICOM series",
    "nifti": "NIfTI scans in images/ and masks/, or X.nii.gz beside X_mask.nii.gz",
    "paired_folder": "images/ and masks/ with one picture per slice",
}


class StudyError(ValueError):
    """A mistake in what the user asked for or handed in; the message names the thing and the way out."""


def name_of(model: str) -> str:
    """A network's name for people: that of MODELS, or "build (my_package.nets)" of one from elsewhere; whatever else is
    judged bears its name already."""
    if FOREIGN.fullmatch(model):
        module, _, function = model.partition(":")
        return f"{function} ({module})"
    return MODELS.get(model, model)


@dataclass(frozen=True)
class Study:
    """All that decides the outcome. Defaults are the paper's (sections 2.1 to 2.4) wherever it gives a value."""

    profile: str = "paper"

    # data
    dataset: str = "phantom"
    data_dir: str = ""  # folder of a dataset read from disk; what counts is its content, not its place
    patient_pattern: str = ""  # regular expression whose first group is the patient, in the name of a scan
    slices_are_patients: bool = False  # accept slices without a patient, and say so in every table
    label_map: tuple[str, ...] = ()  # "VALUE=CLASS" for masks whose values need telling: "4=SAH", or "#00ffff=SAH"
    raters: str = "majority"  # where a scan has several masks: "majority", "union", or one rater's name
    orientation: str = "as stored"  # of ORIENTATIONS, for pictures; "auto" finds each patient's
    target: str = "SAH"  # what is segmented: "SAH", "any" hemorrhage, or "all" classes, each by an output of its own
    phantom_patients: int = 102  # to train and validate with
    # Who come after them are the test side and nothing else; 0 splits the phantom by shares, as scans are.
    phantom_test_patients: int = 300
    phantom_seed: int = 0
    size: int = 256  # height and width after resizing, section 2.2
    windows: tuple[str, ...] = ("brain",)  # of WINDOWS or "LEVEL/WIDTH" in HU; several are channels of one input
    # Like one of windows: that in which 8-bit slices were exported. "" takes them as they are, "auto" finds it.
    grey_window: str = ""

    # split, by patient: the paper gives no shares
    train_share: float = 0.70
    validation_share: float = 0.15
    split_seed: int = 0
    folds: int = 0  # 0 splits once, by the shares above; k lets each patient be tested once, in one of k folds
    fold: int = 0  # which of the folds is the test side

    # networks: the paper gives no widths
    models: tuple[str, ...] = tuple(name for name in MODELS if name != "swin_unetr")
    channels: tuple[int, ...] = (32, 64, 128, 256, 512)
    prior_bias: bool = False  # start the output bias at the log-odds of a lesion pixel (Lin et al. 2017, section 4.1)

    # training, section 2.4
    epochs: int = 50
    batch_size: int = 16
    learning_rate: float = 1e-4
    augmentation: str = "paper"  # of AUGMENTATIONS; "travels" takes windows from Hounsfield units, not from `windows`
    flip_probability: float = 0.5  # of augmentation "paper", as rotation_degrees
    rotation_degrees: float = 15.0  # "random rotation" without an angle in the paper
    seeds: tuple[int, ...] = (0, 1, 2)
    precision: str = "fp32"  # of the convolutions: "fp32", or "bf16" with weights and loss kept in fp32
    deterministic: bool = False  # only operations that give the same bits each time; with "fp32" a GPU repeats a run
    capture: str = "auto"  # of CAPTURES: a step as one CUDA graph where a GPU can, or "never"

    # comparison, beyond the paper: the recipes every network is trained under besides that of the fields above, and
    # the learning rates among which networks choose on validation data
    further_recipes: tuple[str, ...] = ("prior", "fair")
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, many = getattr(self, field.name), isinstance(field.default, tuple)
            kind = type(next(iter(field.default), "") if many else field.default)
            members = value if many else [value]
            if not isinstance(members, (list, tuple)) or not all(_is_a(kind, member) for member in members):
                what = f"{'a list of ' * many}{'finite ' * (kind is float)}{kind.__name__}"
                raise StudyError(f"{field.name} must be {what}; it is {value!r}.")
            if many:  # lists come from JSON and from a notebook's parameters cell
                object.__setattr__(self, field.name, tuple(value))
        if self.dataset not in DATASETS:
            raise StudyError(f"dataset {self.dataset!r} is not known; choose one of {', '.join(DATASETS)}.")
        of_a_folder = ("data_dir", "patient_pattern", "slices_are_patients", "label_map", "orientation")
        if self.dataset == "phantom" and any(getattr(self, name) != getattr(Study, name) for name in of_a_folder):
            raise StudyError(
                f"{', '.join(of_a_folder[:-1])} and {of_a_folder[-1]} belong to a dataset read from disk; add "
                "--data-dir with your folder, or leave them out."
            )
        if self.dataset != "phantom" and not self.data_dir:
            raise StudyError(f"dataset {self.dataset!r} needs data_dir, the folder that holds its scans.")
        if not self.windows:
            raise StudyError("windows must name at least one.")
        self.window_values, self.grey_window_values  # noqa: B018 (refuses what is no window)
        known = [*MODELS, *filter(FOREIGN.fullmatch, self.models)]
        choices = {"target": TARGETS, "precision": PRECISIONS, "models": known, "further_recipes": RECIPES}
        choices |= {"orientation": ORIENTATIONS, "augmentation": AUGMENTATIONS, "capture": CAPTURES}
        for name, known in choices.items():
            value = getattr(self, name)
            if unknown := [one for one in ((value,) if isinstance(value, str) else value) if one not in known]:
                raise StudyError(f"unknown {name}: {', '.join(unknown)}; choose from {', '.join(known)}.")
        choosing = [recipe for recipe in self.further_recipes if recipe in CHOOSING]
        if choosing and not min(self.learning_rates, default=0) > 0:
            raise StudyError(f"the recipe {choosing[0]!r} needs learning_rates, at least one and all above 0.")
        if self.travels and len(self.windows) > 1:
            raise StudyError("'travels' draws a window at random, for one channel; leave one of windows, or it out.")
        if missing := {"unet", "attention_unet"} - set(self.models):
            raise StudyError(f"models must hold {' and '.join(sorted(missing))}: the paper compares these two.")
        for name in ("models", "seeds"):
            value = getattr(self, name)
            if not value or len(set(value)) != len(value):
                raise StudyError(f"{name} must be a list of different values, at least one; it is {list(value)}.")
        for seed in (self.phantom_seed, self.split_seed, *self.seeds):
            if not 0 <= seed <= LARGEST_SEED:
                raise StudyError(f"phantom_seed, split_seed and seeds must be 0 to {LARGEST_SEED}; one is {seed}.")
        # ResNet34 and Swin UNETR halve an image five times, the other networks four; of what is left a batch of one
        # needs 2x2 pixels, or their normalisation has nothing to go by.
        step = 32 if {"unet_resnet34", "swin_unetr"} & {*self.models} else 16
        if self.size < 2 * step or self.size % step:
            raise StudyError(
                f"size {self.size} must be a multiple of {step} and at least {2 * step}, because "
                f"{', '.join(self.models)} halve an image again and again; the nearest is "
                f"{max(2, round(self.size / step)) * step}."
            )
        if len(self.channels) != 5 or min(self.channels) < 1:
            raise StudyError(f"channels must be five positive widths, top level first; they are {list(self.channels)}.")
        for name in ("phantom_patients", "epochs", "batch_size", "learning_rate", "train_share", "validation_share"):
            if not getattr(self, name) > 0:
                raise StudyError(f"{name} must be above 0; it is {getattr(self, name)}.")
        if self.phantom_test_patients < 0:
            raise StudyError(f"phantom_test_patients must not be below 0; it is {self.phantom_test_patients}.")
        if not (shares := self.train_share + self.validation_share) < 1:
            raise StudyError(f"train_share and validation_share must leave something to test; they add up to {shares}.")
        if self.folds not in (0, *range(2, 101)) or not 0 <= self.fold < max(self.folds, 1):
            raise StudyError(f"folds must be 0 or 2 to 100, and fold below it; they are {self.folds} and {self.fold}.")
        if not 0 <= self.flip_probability <= 1:
            raise StudyError(f"flip_probability must lie between 0 and 1; it is {self.flip_probability}.")

    @classmethod
    def of_profile(cls, profile: str = "auto", /, **changes) -> Study:
        """A profile's Study with `changes`.

        "auto" is `paper` where a GPU is there and `quick` elsewhere; a GPU that torch cannot use is an error. Unless
        `changes` names a precision, it is bf16 where the processor computes in it, since that halves the time, and fp32
        elsewhere.
        """
        from sahlib.device import device, multiplies_in_bf16, why_unused

        if profile == "auto":
            if reason := why_unused():
                raise StudyError(
                    f"This machine has an NVIDIA GPU that torch cannot use: {reason} Install a torch that fits "
                    "its driver, or choose the profile yourself: --profile quick computes on the processor."
                )
            profile = "paper" if device().type == "cuda" else "quick"
        if profile not in PROFILES:
            raise StudyError(f"profile {profile!r} is not known; choose one of auto, {', '.join(PROFILES)}.")
        if "profile" in changes:
            raise StudyError("profile is no parameter like others; choose it by --profile or as a notebook's profile.")
        require_known(changes)
        precision = "bf16" if multiplies_in_bf16() else "fp32"  # emulated bf16 would be slower
        return cls(**{"profile": profile, "precision": precision, **PROFILES[profile], **changes})

    @property
    def window_values(self) -> tuple[tuple[float, float], ...]:
        """(level, width) of each window in HU."""
        return tuple(map(_window, self.windows))

    @property
    def grey_window_values(self) -> tuple[float, float] | None:
        """(level, width) of grey_window in HU; None where it names none: "" or "auto"."""
        return None if self.grey_window in ("", "auto") else _window(self.grey_window)

    @property
    def lesion(self) -> str:
        """What counts as a lesion where one has to be named: "any" hemorrhage, or SAH."""
        return "any" if self.target == "any" else "SAH"

    @property
    def recipe(self) -> str:
        """The recipe that the Study's own fields are, of those that set no rate by a search; OWN where it is none."""
        ours = (self.prior_bias, self.learning_rate, self.augmentation)
        known = {recipe: self.under(recipe) for recipe in ("paper", "prior")}
        named = {(s.prior_bias, s.learning_rate, s.augmentation): recipe for recipe, s in known.items()}
        return named.get(ours, OWN)

    @property
    def travels(self) -> bool:
        """Whether any of its trainings has augmentation "travels"."""
        return "travels" in (self.augmentation, *self.further_recipes)

    def under(self, recipe: str, chosen_rate: float | None = None) -> Study:
        """The Study with the fields of a recipe; `chosen_rate` is what a network chose for a recipe of CHOOSING."""
        if recipe not in RECIPES:
            raise ValueError(f"recipe must be one of {', '.join(RECIPES)}; it is {recipe!r}")
        rate = chosen_rate if recipe in CHOOSING and chosen_rate else Study.learning_rate
        augmentation = "travels" if recipe == "travels" else "paper"
        return dataclasses.replace(self, prior_bias=recipe != "paper", learning_rate=rate, augmentation=augmentation)

    def as_dict(self) -> dict:
        """Plain values, ready for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}


def require_known(names: Iterable[str]) -> None:
    """StudyError for a name that no field of a Study has, with the nearest that there is."""
    known = sorted(field.name for field in dataclasses.fields(Study))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            way = f"is it {near[0]}?" if near else f"there are {', '.join(known)}."
            raise StudyError(f"no parameter is called {name}; {way}")


def _is_a(kind: type, value: object) -> bool:
    """Whether a value will do for a field of a kind: whole numbers are floats too, and no number is infinite."""
    if kind is float:
        return isinstance(value, (float, int)) and abs(value) < math.inf
    return isinstance(value, kind)


def _window(name: str) -> tuple[float, float]:
    """(level, width) in HU; StudyError for a name that is no window."""
    if name in WINDOWS:
        return WINDOWS[name]
    try:
        level, width = map(float, name.split("/"))
    except ValueError:
        width = 0.0
    if not (0 < width < math.inf and abs(level) < math.inf):
        raise StudyError(f"window {name!r} is neither one of {', '.join(WINDOWS)} nor LEVEL/WIDTH in HU, as in 40/80.")
    return level, width


# A laptop without a GPU: the same code on fewer patients, smaller images, narrower networks. The rate and the bias
# start are what let MONAI's UNet leave "background everywhere" within a few epochs.
QUICK = {
    "phantom_patients": 34,
    "phantom_test_patients": 120,
    "size": 128,
    "models": ("unet", "unet_free_output", "attention_unet", "attention_unet_open_gates"),
    "channels": (16, 32, 64, 128, 256),
    "epochs": 24,
    "learning_rate": 5e-3,
    "prior_bias": True,
    "seeds": (0,),
    "further_recipes": (),
}
PROFILES = {
    # The paper's recipe to the letter, for a GPU.
    "paper": {},
    "quick": QUICK,
    # The same sizes with what a verdict takes: three trainings of each network, under the paper's recipe and the fair
    # one. An hour and a half on two cores.
    "verdict": QUICK
    | {
        "learning_rate": 1e-4,
        "prior_bias": False,
        "seeds": (0, 1, 2),
        "further_recipes": ("fair",),
    },
    # Seconds; for the tests alone. Its numbers mean nothing.
    "smoke": {
        "phantom_patients": 10,
        "phantom_test_patients": 4,
        "size": 32,
        "models": ("unet", "unet_free_output", "attention_unet", "attention_unet_open_gates"),
        "channels": (4, 8, 8, 8, 8),
        "epochs": 2,
        "seeds": (0,),
        "learning_rates": (1e-3, 1e-2),
    },
}


def digest(*parts) -> str:
    """12 hex digits that name JSON-able `parts`; equal parts, equal name, on every machine."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
