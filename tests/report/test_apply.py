"""A network on scans of one's own: masks as the study predicts them, in the scan's own place, and their volume."""

import json
import re
import shutil
from base64 import b64decode

import cv2
import nibabel
import numpy as np
import pandas as pd
import pytest
from helpers.dicom_writer import affine_of, save, series, write_nifti, write_series
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.special import logit

from sahlib.__main__ import main
from sahlib.chapters import results
from sahlib.data import one_scan
from sahlib.data.check.examine import Contact
from sahlib.data.slices import window_to_grey
from sahlib.data.sources import open_source
from sahlib.data.sources.dicom import one_series
from sahlib.data.sources.dicom_seg import segmentation_labels
from sahlib.networks import models
from sahlib.report import apply
from sahlib.scoring import prediction
from sahlib.study import Study, StudyError
from sahlib.training import loop
from sahlib.training.runs import Run
from sahlib.workspace import Workspace


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network that has learnt little and calls one pixel in fifty blood, and what the study predicts for one phantom
    of its test side: what matters here is where a mask lies.
    """
    workspace = Workspace(str(tmp_path_factory.mktemp("study")))
    study = Study.of_profile("smoke", learning_rate=1e-2, prior_bias=True, precision="fp32")
    store, split = results.load_data(study, workspace)
    run = loop.train(store, split, study, "unet", 0, workspace.runs)
    rows = split.rows(store, "test")
    with safe_open(run.weights, "pt") as file:
        weights, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    network = prediction.load_network(run)
    high = np.quantile(logit(np.float64(prediction.predict(network, store.inputs(rows), study))), 0.98)
    (bias,) = [name for name, tensor in network.named_parameters() if tensor is models.output_layer(network).bias]
    save_file(weights | {bias: weights[bias] - float(high)}, run.weights, metadata)
    prediction.test(run, store, split, study)
    patients = store.slices["patient_id"].iloc[rows].to_numpy()
    found = run.probabilities > prediction.THRESHOLD
    patient = max(set(patients), key=lambda who: found[patients == who].sum())
    predicted = found[patients == patient]
    assert predicted.sum() > 50
    return workspace, run, open_source(study).scan(int(patient[1:])), predicted


@pytest.fixture(scope="module")
def stored(trained, tmp_path_factory):
    """The scan as NIfTI in another orientation, as DICOM in another view, and as pictures upside down."""
    scan, root = trained[2], tmp_path_factory.mktemp("scans")
    write_nifti(root / "head.nii.gz", scan.image, affine_of(scan), "RAS", np.int16)
    write_series(root / "series", series(scan, turn=(True, False, True)))
    (root / "pictures").mkdir()
    for z, grey in enumerate(window_to_grey(scan.image, 40, 80)):
        cv2.imwrite(str(root / "pictures" / f"{z}.png"), np.ascontiguousarray(grey[::-1, ::-1]))
    return root


@pytest.fixture(scope="module")
def enlarged(trained):
    """The study's own prediction in the scan's pixels, whose side is eight times as long: each becomes 64."""
    return (
        np.stack([cv2.resize(np.uint8(m), (256, 256), interpolation=cv2.INTER_NEAREST_EXACT) for m in trained[3]]) > 0
    )


def test_a_nifti_mask_lies_on_its_scan_and_is_the_studys_own(trained, stored, enlarged, tmp_path):
    _, run, scan, _ = trained
    told, failed = apply.write([stored / "head.nii.gz"], run, tmp_path, {})
    assert not failed
    mask, image = nibabel.load(tmp_path / "head_mask.nii.gz"), nibabel.load(stored / "head.nii.gz")
    assert mask.shape == image.shape and np.array_equal(mask.affine, image.affine)
    seen = nibabel.as_closest_canonical(mask)
    np.testing.assert_array_equal(np.asarray(seen.dataobj)[::-1, ::-1].transpose(2, 1, 0) > 0, enlarged)
    millilitres = enlarged.sum() * scan.spacing_mm[0] * scan.spacing_mm[1] * scan.thickness_mm / 1000
    table = pd.read_csv(tmp_path / "volumes.csv").iloc[0]
    assert table.amount == pytest.approx(millilitres, abs=1e-2) and table.unit == "mL" and table.lesion == "SAH"
    assert f"head: SAH {millilitres:.2f} mL in {enlarged.any((1, 2)).sum()} slices" in told


def test_a_dicom_segmentation_refers_to_its_series_and_is_the_studys_own(trained, stored, enlarged, tmp_path):
    apply.write([stored / "series"], trained[1], tmp_path, {})
    slices = one_series(stored / "series")
    np.testing.assert_array_equal(segmentation_labels(tmp_path / "series_mask.dcm", slices, {}) > 0, enlarged)


def test_pictures_get_masks_that_lie_as_they_do(trained, stored, enlarged, tmp_path):
    told, _ = apply.write([stored / "pictures"], trained[1], tmp_path, {"orientation": "rot180"})
    masks = [
        cv2.imread(str(tmp_path / "pictures_mask" / f"{z}.png"), cv2.IMREAD_UNCHANGED) for z in range(len(enlarged))
    ]
    np.testing.assert_array_equal(np.stack(masks)[:, ::-1, ::-1], enlarged * np.uint8(255))
    assert f"pictures: SAH {enlarged.sum():,} pixels in " in told
    page, shown = (tmp_path / "apply.html").read_text(), int(enlarged.sum((1, 2)).argmax())
    assert f"<figcaption>{shown}</figcaption>" in page and f">{enlarged.sum():,} pixels</td>" in page


def test_one_bad_scan_does_not_stop_the_others_and_the_page_says_what_is_known(trained, stored, tmp_path):
    workspace, run, *_ = trained
    (tmp_path / "bad.nii").write_bytes(b"nothing")
    told, failed = apply.write([tmp_path / "bad.nii", stored / "head.nii.gz"], run, tmp_path / "out", {})
    assert len(failed) == 1 and failed[0].endswith("or remove it.")
    page = (tmp_path / "out" / "apply.html").read_text()
    for words in ("bad.nii cannot be read", "trained on phantom (profile smoke)", "On its test patients"):
        assert words in told and words in page
    assert "no medical device" in page and len(re.findall("<figure>", page)) > 0
    with pytest.raises(StudyError, match="No scan could be segmented:\n- .*bad.nii"):
        apply.write([tmp_path / "bad.nii"], run, tmp_path / "none", {})
    where = ["--output", workspace.output, "--to", str(tmp_path / "by command")]
    assert main(["apply", str(stored / "head.nii.gz"), *where]) == 0
    assert main(["apply", str(tmp_path / "bad.nii"), str(stored / "head.nii.gz"), *where]) == 1


def test_a_nifti_mask_keeps_whatever_its_scan_says_of_space(trained, tmp_path):
    scan = trained[2]
    sheared = affine_of(scan) @ np.array([[1, 0, 0, 0], [0, 1, 0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    image = nibabel.Nifti2Image(scan.image.transpose(2, 1, 0)[..., None], sheared)
    image.set_qform(affine_of(scan), 1)
    image.set_sform(sheared, 1)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "two.nii")
    (tmp_path / "named.nii.gz").symlink_to(tmp_path / "two.nii")
    apply.write([tmp_path / "named.nii.gz"], trained[1], tmp_path / "out", {})
    mask, image = nibabel.load(tmp_path / "out" / "named_mask.nii.gz"), nibabel.load(tmp_path / "two.nii")
    assert mask.shape == image.shape and type(mask) is type(image) and mask.get_data_dtype() == np.uint8
    for form in ("get_sform", "get_qform", "get_xyzt_units", "get_zooms"):
        np.testing.assert_array_equal(getattr(mask.header, form)(), getattr(image.header, form)())


def save_anyway(dataset, path):
    path.parent.mkdir(exist_ok=True)
    dataset.save_as(path, enforce_file_format="SOPInstanceUID" in dataset, implicit_vr=False, little_endian=True)


def put(**changes):
    return lambda dataset, k: [setattr(dataset, name, value) for name, value in changes.items()]


@pytest.mark.parametrize(
    "change",
    [
        put(SliceThickness=None),
        put(StudyInstanceUID="", PatientSex="female", PatientName="A"),
        lambda dataset, k: setattr(dataset, "StudyInstanceUID", f"1.2.3.{k + 1}"),
        lambda dataset, k: delattr(dataset, "SOPInstanceUID"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_headers_of_anonymous_exports_do_not_stop_a_segmentation(trained, enlarged, tmp_path, change):
    datasets = series(trained[2])
    for k, dataset in enumerate(datasets):
        change(dataset, k)
        save_anyway(dataset, tmp_path / "s" / f"{k}.dcm")
    (tmp_path / "s" / "preview.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((9, 9), np.uint8))[1].tobytes())
    apply.write([tmp_path / "s"], trained[1], tmp_path / "out", {})
    slices = one_series(tmp_path / "s")
    np.testing.assert_array_equal(segmentation_labels(tmp_path / "out" / "s_mask.dcm", slices, {}) > 0, enlarged)


def test_a_picture_whose_way_up_is_in_doubt_is_named(trained, tmp_path):
    cv2.imwrite(str(tmp_path / "blank.png"), np.zeros((64, 64), np.uint8))
    told, _ = apply.write([tmp_path / "blank.png"], trained[1], tmp_path / "out", {"orientation": "auto"})
    assert "blank: which way up it lies is in doubt; left as stored." in told


def test_what_lies_in_a_folder_is_never_overwritten(trained, stored, tmp_path):
    truth = tmp_path / "head_mask.nii.gz"
    truth.write_bytes(b"drawn by hand")
    with pytest.raises(StudyError, match="is not empty, and nothing in it is overwritten; name a new folder with --to"):
        apply.write([stored / "head.nii.gz"], trained[1], tmp_path, {})
    assert truth.read_bytes() == b"drawn by hand" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "head.nii.gz").write_bytes((stored / "head.nii.gz").read_bytes())
    both = [stored / "head.nii.gz", tmp_path / "again" / "head.nii.gz"]
    for _ in range(2):  # of its own folder a second call makes another
        _, failed = apply.write(both, trained[1], tmp_path / "out", {})
        assert "again/head.nii.gz has the name of an earlier scan" in failed[0]


def test_what_cannot_be_asked_is_named(trained, stored, tmp_path):
    with pytest.raises(StudyError, match="size was settled when the network was trained"):
        apply.study_of(trained[1], size=64)
    with pytest.raises(StudyError, match="is not there; give a NIfTI file"):
        one_scan.read(tmp_path / "nothing")
    with pytest.raises(StudyError, match="holds no finished training; run"):
        apply.best_run(Workspace(str(tmp_path)))
    save(series(trained[2])[0], tmp_path / "two" / "1")
    save(series(trained[2])[0], tmp_path / "two" / "2")
    with pytest.raises(StudyError, match="holds the CT series .* and .*; give a folder with one series"):
        one_scan.read(tmp_path / "two")


def test_a_way_up_is_for_the_pictures_of_a_mixed_call_alone(trained, stored, enlarged, tmp_path):
    both = [stored / "head.nii.gz", stored / "pictures"]
    assert apply.write(both, trained[1], tmp_path, {"orientation": "auto"})[1] == []
    seen = nibabel.as_closest_canonical(nibabel.load(tmp_path / "head_mask.nii.gz"))
    np.testing.assert_array_equal(np.asarray(seen.dataobj)[::-1, ::-1].transpose(2, 1, 0) > 0, enlarged)


def test_a_window_is_found_for_each_scan_and_one_in_doubt_is_named(trained, tmp_path):
    cv2.imwrite(str(tmp_path / "blank.png"), np.zeros((64, 64), np.uint8))
    (tmp_path / "wide").mkdir()
    for z, grey in enumerate(window_to_grey(trained[2].image, 75, 215)):
        cv2.imwrite(str(tmp_path / "wide" / f"{z}.png"), grey)
    both = [tmp_path / "blank.png", tmp_path / "wide"]
    (sentence,) = apply.write(both, trained[1], tmp_path / "out", {"grey_window": "auto"})[1]
    assert sentence.startswith(f"grey_window=auto: the window of {tmp_path / 'blank.png'} is none that is known; name")


def test_an_interrupted_call_keeps_what_is_done_and_says_so(trained, stored, tmp_path, monkeypatch, capsys):
    def two(scans):
        yield scans[0]
        raise KeyboardInterrupt

    monkeypatch.setattr("tqdm.tqdm", two)
    scans = [str(stored / name) for name in ("head.nii.gz", "series")]
    assert main(["apply", *scans, "--run", str(trained[1].path), "--to", str(tmp_path)]) == 130
    said = "interrupted; 1 of 2 scans done and kept; the same command does all again."
    assert capsys.readouterr().err.strip() == said
    page = (tmp_path / "apply.html").read_text()
    assert "Interrupted: 1 of 2 scans done" in page and "head_mask.nii.gz" in page and "<figure>" in page
    assert pd.read_csv(tmp_path / "volumes.csv")["scan"].tolist() == ["head"]


def test_what_cannot_be_written_is_not_called_unread(trained, stored, tmp_path):
    (tmp_path / "apply.html").touch()
    (tmp_path / "head_mask.nii.gz" / "in the way").mkdir(parents=True)
    (sentence,) = apply.write([stored / "head.nii.gz", stored / "series"], trained[1], tmp_path, {})[1]
    page = (tmp_path / "apply.html").read_text()
    assert "head_mask.nii.gz cannot be written" in sentence and "Not segmented" in page and "Not read" not in page


def test_nothing_found_is_a_mask_without_a_warning(trained, stored, tmp_path, caplog):
    opened = one_scan.read(stored / "series")
    opened.save(np.zeros_like(opened.scan.labels), ("SAH",), tmp_path)
    assert not segmentation_labels(tmp_path / "series_mask.dcm", one_series(stored / "series"), {}).any()
    assert not caplog.records


def test_the_pictures_of_a_scan_stay_small_however_noisy_it_is():
    noise = np.random.default_rng(0).normal(90, 60, (512, 512)).clip(0, 255).astype(np.uint8)
    content = b64decode(apply.picture(Contact("p", "p_0", noise, np.zeros_like(noise))))
    assert len(content) <= apply.MOST_BYTES and apply.SHOWN * apply.MOST_BYTES * 4 / 3 < 150_000
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (256, 256, 3)


def test_the_best_of_the_newest_study_is_taken_and_the_damaged_are_named(trained, tmp_path, capsys):
    """Two trainings of one study, and an older one of another with a Dice that is no match for theirs."""
    _, run, *_ = trained

    def copied(seed, dice, year, **recipe):
        path = shutil.copytree(run.path, tmp_path / "runs" / "phantom" / "unet" / f"seed{seed}-a")
        record = run.record | {"seed": seed, "recipe": run.record["recipe"] | recipe}
        record["provenance"] = record["provenance"] | {"time": f"{year}-01-01T00:00:00+00:00"}
        (path / "run.json").write_text(json.dumps(record))
        run.history.assign(validation_dice=dice).to_csv(path / "history.csv", index=False)
        return path

    copied(1, 0.9, 2020, target="any")
    copied(2, 0.4, 2025)
    better = copied(3, 0.5, 2024)
    best, why = apply.best_run(Workspace(str(tmp_path)))
    assert best.path == better and len(why) == 1 and best.path == apply.named_run(better).path
    assert why[0].startswith("Taken for the best validation Dice on its slices and target, of 2 trainings; 1 older one")

    travelled = copied(4, 0.2, 2023, augmentation="travels")  # lower at home, and made for scans from elsewhere
    best, why = apply.best_run(Workspace(str(tmp_path)))
    assert best.path == travelled and 'of 1 training with augmentation "travels" (3 in all)' in why[0]
    shutil.rmtree(travelled)

    damages = {
        "history.csv": lambda path: path.unlink(),
        "counts.csv": lambda path: path.write_text("slice_id\nx\n"),
        "run.json": lambda path: path.write_text("{}"),
    }
    for name, damage in damages.items():
        damage(better / name)
        best, why = apply.best_run(Workspace(str(tmp_path)))
        assert best.seed == 2 and "of 1 training;" in why[0] and len(why) == 2
        assert main(["apply", "x.nii", "--run", str(better), "--to", str(tmp_path / "out")]) == 2
        printed = capsys.readouterr().err
        for said in (why[1], printed):
            assert f"{better} holds a damaged training (" in said and said.strip().count("\n") == 0
        shutil.rmtree(better)
        better = copied(3, 0.5, 2024)


def test_several_lesions_have_a_legend(trained, stored, tmp_path, monkeypatch):
    both = Run(trained[1].path, trained[1].record | {"lesions": ["SAH", "IVH"]})
    monkeypatch.setattr(apply.prediction, "load_network", lambda run: None)
    monkeypatch.setattr(
        apply.prediction, "predict", lambda network, images, study: np.full((len(images), 2, 32, 32), 0.9)
    )
    apply.write([stored / "head.nii.gz"], both, tmp_path, {})
    page = re.sub("<[^>]*>", "", (tmp_path / "apply.html").read_text())
    assert "Values in the masks (in DICOM-SEG, segments) and outlines: 1 SAH, 2 IVH." in page


def test_several_lesions_become_numbers(trained):
    probabilities = np.zeros((1, 2, 2, 2), np.float16)
    probabilities[0, :, 0, 0] = 0.6, 0.7
    probabilities[0, :, 0, 1] = 0.8, 0.1
    np.testing.assert_array_equal(apply.labelled(probabilities), [[[2, 1], [0, 0]]])
