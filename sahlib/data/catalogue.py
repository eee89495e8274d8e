"""Catalogue: where the public sets come from, on what terms, and how they must lie on disk; facts, no reading.

Every fact carries the page or DOI it is from. Where that page itself could not be read when this was written, in 2026,
and the fact is from others who quote it, `unverified` says so; what nobody documents is marked not verified. A set is
fetched for the user only where its licence is open and the checksum of its archive is known.

`docs/datasets.md` is the same in one table; after a change here write it anew:

    python -c "from sahlib.data import catalogue; print(catalogue.page(), end='')" > docs/datasets.md
"""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import dataclass

from sahlib.study import StudyError

NOT_VERIFIED = "not verified"
KEY_WIDTH = 13
TORCH_EM = "https://github.com/constantinpape/torch-em"


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


RHUH_SAH = PublicSet(
    name="rhuh_sah",
    title=Fact(
        "Head CT of patients with SAH and one expert mask each, Río Hortega University Hospital, Valladolid",
        "https://doi.org/10.5281/zenodo.8228847",
    ),
    licence=Fact("CC BY 4.0", "https://zenodo.org/records/8228847"),
    access=Fact(
        "Open: ./run_all.sh data rhuh_sah --to DIR downloads and unpacks it, with unrar, unar, 7z or bsdtar.",
        "https://zenodo.org/records/8228847",
    ),
    citation=Fact(
        "García García S, Cepeda S, Arrese I, Sarabia R. A Fully Automated Pipeline Using Swin Transformers for Deep "
        "Learning-Based Blood Segmentation on Head CT Scans After Aneurysmal Subarachnoid Hemorrhage. 2023, "
        "arXiv:2312.17553; and the record, doi 10.5281/zenodo.8228847",
        "https://arxiv.org/abs/2312.17553",
    ),
    size=Fact("648,502,298 bytes, one rar", "https://zenodo.org/records/8228847"),
    labels=Fact("hemorrhage of patients with SAH, one class", "https://doi.org/10.5281/zenodo.8228847"),
    layout=Fact(
        "NIfTI scans and masks, in two folders or side by side, paired by name or by pairs.csv with the columns image, "
        "mask and patient_id; the names inside the archive are not published.",
        NOT_VERIFIED,
    ),
    unverified=(
        "Licence, length and MD5 are as one public audit quotes the Zenodo record; the record itself was not read.",
        "Who the authors of the record are, and that the cited paper is the one it wants cited, is inferred.",
        "The number of patients is not in the record; the paper reports 100 patients of this hospital.",
    ),
    archive=Archive(
        file="subarachnoid_hemorrhage_rhuh.rar",
        url="https://zenodo.org/records/8228847/files/subarachnoid_hemorrhage_rhuh.rar?download=1",
        checksum="md5:a67bf358ebb326f156071864c318ab42",
        size=648_502_298,
    ),
)

CT_ICH = PublicSet(
    name="ct_ich",
    title=Fact(
        "CT-ICH 1.3.1: head CT after trauma, 82 patients of whom 36 bleed, 75 with NIfTI scans, Al Hilla, Iraq",
        "https://doi.org/10.13026/4nae-zg36",
    ),
    licence=Fact(
        "restricted access under PhysioNet's data use agreement", "https://physionet.org/content/ct-ich/1.3.1/"
    ),
    access=Fact(
        "Make a PhysioNet account, sign the data use agreement on the page of the set, download its zip and unpack it.",
        "https://physionet.org/content/ct-ich/1.3.1/",
    ),
    citation=Fact(
        "Hssayeni M. Computed Tomography Images for Intracranial Hemorrhage Detection and Segmentation. Version 1.3.1, "
        "PhysioNet, 2020, doi 10.13026/4nae-zg36; Hssayeni MD et al. Intracranial Hemorrhage Segmentation Using a Deep "
        "Convolutional Model. Data 5(1):14, 2020; Goldberger A et al. PhysioBank, PhysioToolkit, and PhysioNet. "
        "Circulation 101(23):e215-e220, 2000",
        "https://physionet.org/content/ct-ich/1.3.1/",
    ),
    size=Fact("75 scans of about 30 slices", "https://doi.org/10.3390/data5010014"),
    labels=Fact(
        "one mask of all hemorrhage types together; the CSV says which types a slice shows",
        "https://physionet.org/content/ct-ich/1.3.1/",
    ),
    layout=Fact(
        "ct_scans/049.nii, masks/049.nii and hemorrhage_diagnosis_raw_ct.csv (PatientNumber, SliceNumber, five types, "
        "No_Hemorrhage); or an earlier release, Patients_CT/049/brain/14.jpg with 14_HGE_Seg.jpg; or what the authors' "
        "script exports, image/0.png with label/0.png.",
        "https://physionet.org/content/ct-ich/1.3.1/",
    ),
    unverified=(
        "Others call its licence PhysioNet Restricted Health Data License 1.5.0; the text was not read.",
        "The length of the download was not found.",
    ),
)

BHSD = PublicSet(
    name="bhsd",
    title=Fact(
        "Brain Hemorrhage Segmentation Dataset: 192 head CT with five hemorrhage types",
        "https://doi.org/10.1007/978-3-031-45673-2_15",
    ),
    licence=Fact(
        "contradictory: MIT on Hugging Face; NC-ND, no commercial use and no modified set, in the README on GitHub",
        "https://github.com/White65534/BHSD",
    ),
    access=Fact(
        "Its two pages name different licences, so decide which binds you, or ask the authors; then download "
        "label_192.zip from https://huggingface.co/datasets/Wendy-Fly/BHSD and unpack it.",
        "https://huggingface.co/datasets/Wendy-Fly/BHSD",
    ),
    citation=Fact(
        "Wu B, Xie Y, Zhang Z, Ge J, Yaxley K, Bahadir S, Wu Q, Liu Y, To MS. BHSD: A 3D Multi-class Brain Hemorrhage "
        "Segmentation Dataset. MLMI 2023, 147-156, doi 10.1007/978-3-031-45673-2_15",
        "https://github.com/White65534/BHSD",
    ),
    size=Fact("1.45 GB, one zip", "https://huggingface.co/datasets/Wendy-Fly/BHSD"),
    labels=Fact("1 EDH, 2 IPH, 3 IVH, 4 SAH, 5 SDH", "https://github.com/White65534/BHSD/blob/main/dataset.json"),
    layout=Fact(
        "images/NAME.nii.gz and 'ground truths'/NAME.nii.gz, as label_192/ holds them; or imagesTr/, labelsTr/ and "
        "dataset.json.",
        TORCH_EM,
    ),
    unverified=(
        "The layout is that of a public reader (torch-em); the archive itself was not opened.",
        "The same reader gives the zip's SHA-256: 582bf184af993541a4958a4d209a6a44e3bbe702a5daefaf9fb1733a4e7a6e39.",
        "The scans seem to be from the RSNA 2019 challenge, which allows noncommercial use (PMC8082297); whether its "
        "terms bind here was not found.",
    ),
)

MBH_SEG = PublicSet(
    name="mbh_seg",
    title=Fact(
        "MBH-Seg, MICCAI challenges 2024 and 2025: head CT with five hemorrhage types, several raters per scan in 2025",
        "https://mbhseg.com",
    ),
    licence=Fact("MIT for 2024; 2025 not verified", "https://huggingface.co/datasets/mbhseg/mbhseg24"),
    access=Fact(
        "No checksum of its archives was found, so download MBH_Train_2025_voxel-label.zip from "
        "https://huggingface.co/datasets/mbhseg/mbhseg25 after reading its terms there, and unpack it.",
        "https://huggingface.co/datasets/mbhseg/mbhseg25",
    ),
    citation=Fact("the challenge, MBH-Seg25, https://mbhseg.com; no paper of it was found", "https://mbhseg.com"),
    size=Fact(NOT_VERIFIED, NOT_VERIFIED),
    labels=Fact("EDH, IPH, IVH, SAH, SDH as in bhsd", NOT_VERIFIED),
    layout=Fact(
        "For 2025 CASE/image.nii.gz and, one per rater, CASE/label_annot_1.nii.gz, CASE/label_annot_2.nii.gz, ...; "
        "the files of 2024 are read as bhsd.",
        NOT_VERIFIED,
    ),
    unverified=(
        "The layout is that of programs of participants; the archives were not opened.",
        "The class values are those of bhsd, from which the scans of 2024 seem to be; a colour key published with a "
        "rendering of the set swaps SAH and IVH, so look at a few masks first.",
        "The licence of the 2025 set, and whether it wants an account, was not found.",
    ),
)

INSTANCE2022 = PublicSet(
    name="instance2022",
    title=Fact(
        "INSTANCE 2022, MICCAI challenge: 100 head CT with any intracranial hemorrhage, the training part",
        "https://arxiv.org/abs/2301.03281",
    ),
    licence=Fact("annotations CC BY-NC-ND; no redistribution", "https://instance.grand-challenge.org/Participation/"),
    access=Fact(
        "Join the challenge on https://instance.grand-challenge.org, sign its agreement "
        "(https://github.com/PerceptionComputingLab/INSTANCE2022, folder Agreements) and send it to "
        "INSTANCE2022@outlook.com; the download link is on the dataset page once you are in.",
        "https://github.com/PerceptionComputingLab/INSTANCE2022",
    ),
    citation=Fact(
        "Li X et al. The state-of-the-art 3D anisotropic intracranial hemorrhage segmentation on non-contrast head CT: "
        "The INSTANCE challenge. arXiv:2301.03281, 2023; Li X et al. Hematoma Expansion Context Guided Intracranial "
        "Hemorrhage Segmentation and Uncertainty Estimation. IEEE JBHI 26(3):1140-1151, 2022",
        "https://github.com/PerceptionComputingLab/INSTANCE2022",
    ),
    size=Fact("100 scans with masks; bytes not verified", "https://arxiv.org/abs/2301.03281"),
    labels=Fact("1 is any hemorrhage: SAH cannot be told from the rest", "https://arxiv.org/abs/2301.03281"),
    layout=Fact("data/001.nii.gz and label/001.nii.gz, as train_2/ holds them.", TORCH_EM),
    unverified=(
        "The challenge's pages want a login; licence and layout are as torch-em, a public reader, quotes them.",
        "The same reader says the organisers opened the set in 2026 to all who sign in.",
    ),
    options="--label-map 1=IPH --target any",
)

NIFTI = PublicSet(
    name="nifti",
    title=Fact("Any folder of NIfTI scans and masks of yours"),
    labels=Fact("1 is SAH, or as --label-map says"),
    layout=Fact(
        "images/ with masks/ or labels/, matched by name; or X.nii.gz beside X_mask.nii.gz; or pairs.csv with the "
        "columns image, mask and patient_id."
    ),
)

DICOM = PublicSet(
    name="dicom",
    title=Fact("Any folder of DICOM series of yours, with masks"),
    labels=Fact("a mask of one class is SAH; or as --label-map says"),
    layout=Fact(
        "One folder per series at any depth, and for each a mask: FOLDER.nii.gz beside it, mask.nii.gz in it, or a "
        "DICOM-SEG anywhere."
    ),
)

PAIRED_FOLDER = PublicSet(
    name="paired_folder",
    title=Fact("Slices of yours as pictures"),
    labels=Fact("white is SAH; or colours as --label-map says"),
    layout=Fact(
        "images/ and masks/ with one picture per slice, matched by name, and slices.csv with the columns file and "
        "patient_id."
    ),
)

CATALOGUE = (RHUH_SAH, CT_ICH, BHSD, MBH_SEG, INSTANCE2022, NIFTI, DICOM, PAIRED_FOLDER)


def find(name: str) -> PublicSet:
    """The set of that name; StudyError for a name that is none."""
    for candidate in CATALOGUE:
        if candidate.name == name:
            return candidate
    raise StudyError(f"{name!r} is no set of the catalogue; there are {', '.join(s.name for s in CATALOGUE)}.")


def next_command(chosen: PublicSet, folder: str = "DIR") -> str:
    """What to type to run the study on a set that lies in `folder`."""
    quoted = folder if folder == "DIR" else shlex.quote(folder)
    return f"./run_all.sh --dataset {chosen.name} --data-dir {quoted} {chosen.options}".rstrip()


def listing() -> str:
    """One line per set: its name, whether it is fetched for you, and what it is."""
    ways = [("open" if s.archive else "yours" if s.access == OWN else "by hand") for s in CATALOGUE]
    lines = [f"{s.name:<15}{way:<9}{s.title.text}" for s, way in zip(CATALOGUE, ways, strict=True)]
    return "\n".join(
        [*lines, "", "./run_all.sh data NAME says more; the built-in phantom needs nothing from anywhere."]
    )


def describe(chosen: PublicSet) -> str:
    """All that is known of a set, for the command line, 100 columns wide."""
    rows = [("from", chosen.title.source)] if chosen.title.source else []
    for key in ("licence", "access", "citation", "size", "labels", "layout"):
        fact = getattr(chosen, key)
        if fact != OWN:
            rows.append((key, f"{fact.text} ({fact.source})" if fact.source else fact.text))
    rows += [("not checked", sentence) for sentence in chosen.unverified] + [("next", next_command(chosen))]
    return "\n".join([f"{chosen.name}: {chosen.title.text}", *(_indented(key, text) for key, text in rows)])


def page() -> str:
    """docs/datasets.md, Markdown: every set in one table, then what could not be verified."""
    head = ["set", "what", "licence", "how to get it", "size", "labels", "layout below `--data-dir`"]
    rows = [
        [f"`{s.name}`", *(_cell(fact) for fact in (s.title, s.licence, s.access, s.size, s.labels, s.layout))]
        for s in CATALOGUE
    ]
    table = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    unverified = [f"- `{s.name}`: {sentence}" for s in CATALOGUE for sentence in s.unverified]
    cite = [f"- `{s.name}`: {s.citation.text}." for s in CATALOGUE if s.citation != OWN]
    return "\n".join(
        [
            "# Datasets",
            "",
            "Nothing is redistributed here. `./run_all.sh data NAME` prints a row of this table with its sources",
            "and the command to run next; `./run_all.sh data NAME --to DIR` fetches a set whose licence is open.",
            "`sahlib/datasets/catalogue.py` writes this page.",
            "",
            *table,
            "",
            "## To cite",
            "",
            *cite,
            "",
            "## Not verified",
            "",
            *unverified,
            "",
        ]
    )


def _cell(fact: Fact) -> str:
    text = fact.text.replace("|", "\\|")
    if not fact.source or fact.text == fact.source:
        return text
    return f"{text} ({NOT_VERIFIED})" if fact.source == NOT_VERIFIED else f"{text} ([source]({fact.source}))"


def _indented(key: str, text: str) -> str:
    wrapped = textwrap.wrap(text, 100 - KEY_WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"{key if i == 0 else '':<{KEY_WIDTH}}{line}" for i, line in enumerate(wrapped))
