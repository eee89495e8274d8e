"""Names as people write them: one form, one order, and tables in which every value is text."""

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sahlib.data import slices, splits
from sahlib.data.sources import files, names
from sahlib.data.sources import paired_folder as source
from sahlib.study import Study, StudyError

MISSING = ["NA", "N/A", "null", "None", "nan", "NaN", "", "007", "1e5", "True"]
DECOMPOSED = unicodedata.normalize("NFD", "Müller")


@given(st.text(min_size=1))
def test_a_plain_name_stays_as_it_is(text):
    assert names.plain(names.plain(text)) == names.plain(text)


@pytest.mark.parametrize(
    "written", [" P 03 ", "P 03\u200b", "\ufeffP 03", "P 03\0", "P\u00a003", "P\r03", "P  03", "Ｐ ０３"], ids=ascii
)
def test_spellings_are_one_name(written):
    assert names.plain(written) == "P 03" and names.plain(DECOMPOSED) == "Müller"


@pytest.mark.parametrize("pair", [("P01", "p01"), ("P01", "P01."), ("P007", "P7")])
def test_names_that_look_alike_stay_two_and_are_told(pair):
    (remark,) = names.spellings([*pair, "P10", "P100"])
    assert all(name in remark for name in pair) and "taken for 2" in remark


def test_numbers_in_names_are_ordered_by_value():
    assert sorted(["P_10", "P_9", "P_1", "Q_2", "P_09b"], key=names.natural) == ["P_1", "P_09b", "P_9", "P_10", "Q_2"]
    assert sorted(["9" * 5000, "1" + "0" * 5000, "7"], key=names.natural)[::2] == ["7", "1" + "0" * 5000]


@given(st.lists(st.text("ab019_", min_size=1)))
def test_any_names_can_be_ordered(texts):
    ordered = sorted(texts, key=names.natural)
    assert sorted(ordered, key=names.natural) == ordered


@pytest.mark.parametrize("value", [value for value in MISSING if value])
def test_every_value_of_a_table_is_text(tmp_path, value):
    (tmp_path / "t.csv").write_text(f"file,patient_id\n{value},{value}\n")
    assert names.read_table(tmp_path / "t.csv", ("file", "patient_id")) == [{"file": value, "patient_id": value}]


@pytest.mark.parametrize(
    "content",
    [
        "\ufefffile,patient_id\r\na.png,P1\r\n".encode(),
        b"file;patient_id\na.png;P1\n",
        "file\tpatient_id\na.png\tP1\n".encode("utf-16"),
        b"File, Patient_ID\na.png,P1\n\n",
        b'file,patient_id,note\n"a.png",P1\n',
        b"sep=;\r\nfile;patient_id\r\na.png;P1\r\n",
        b"file;patient_id;note (a,b,c,d)\na.png;P1;x\n",
        b"file,PatientID,patient_age\na.png,P1,60\n",
        b"file,subject,\na.png,P1,\n",
    ],
)
def test_tables_as_spreadsheets_write_them(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    (row,) = names.read_table(tmp_path / "t.csv", ("file", "patient_id"))
    assert (row["file"], row["patient_id"]) == ("a.png", "P1")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"file\na\n", "lacks the column patient_id"),
        (b"\x81\xff", "UTF-8"),
        (b"file,patient_id\na.png,Doe, J\n", r"a row longer than its heading .*Doe.*quotes"),
        (b"file,Patient_ID,patient_id\na.png,1,2\n", "2 columns that mean patient_id"),
        (b"file,patient,subject\na.png,1,2\n", "2 columns that mean patient_id"),
        (b'file,patient_id,note\na.png,P1,"5 mm\n', "every quote closed"),
        (b'file,patient_id,note\na.png,P1,"' + b"x" * 200_000, "every quote closed"),
    ],
)
def test_what_is_no_such_table_is_refused(tmp_path, content, words):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(StudyError, match=f"t.csv.*{words}"):
        names.read_table(tmp_path / "t.csv", ("file", "patient_id"))


def test_two_files_of_one_name_are_refused(tmp_path):
    for name in ("Müller.png", f"{DECOMPOSED}.png"):
        (tmp_path / name).touch()
    with pytest.raises(StudyError, match="have the same stem"):
        files.by_stem(list(tmp_path.iterdir()))


def test_a_column_that_hides_the_patient_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("file,patient number\na.png,1\n")
    with pytest.raises(StudyError, match="'patient number'; call it patient_id"):
        names.read_table(tmp_path / "t.csv", ("file",))


@pytest.mark.skipif(os.name == "nt", reason="needs names that are no text")
@pytest.mark.parametrize("files_of", [files.within, lambda folder: list(files.walk(folder))], ids=["within", "walk"])
def test_a_name_that_is_not_utf_8_is_told(tmp_path, files_of):
    try:
        open(os.fsencode(tmp_path) + b"/M\xfcller.nii", "wb").close()
    except OSError:
        pytest.skip("this file system takes no such names")
    with pytest.raises(StudyError, match=r"M.udcfcller.nii' has a name that is not UTF-8"):
        files_of(tmp_path)


# In a paired folder


def rewrite(folder, line):
    """slices.csv with each row written by `line`(file, patient, number)."""
    rows = (folder / "slices.csv").read_text().splitlines()[1:]
    written = [line(*row.split(","), number) for number, row in enumerate(rows)]
    (folder / "slices.csv").write_text("\n".join(["file,patient_id", *written]) + "\n")


def patients(folder):
    return [pair.patient_id for pair in source.open_folder(folder).cases]


@pytest.mark.parametrize(
    "line",
    [
        lambda file, patient, number: f"{file},{patient}{' ' * (number % 2)}",
        lambda file, patient, number: f"images\\{file},{patient}",
        lambda file, patient, number: f"{file.removesuffix('.png')},{patient}",
    ],
    ids=["blanks", "Windows paths", "no ending"],
)
def test_rows_find_their_slices_and_patients_stay_one(paired_folder, line):
    expected = patients(paired_folder)
    rewrite(paired_folder, line)
    assert patients(paired_folder) == expected and len(set(expected)) == 12


def test_spellings_taken_for_one_are_told(paired_folder):
    rewrite(paired_folder, lambda file, patient, number: f"{file},{patient}{' ' * (number % 2)}")
    remarks = source.open_folder(paired_folder).remarks
    assert len(remarks) == 12 and "p00 is written in 2 ways ('p00', 'p00 '), taken for one" in remarks[0]


def test_rows_of_files_that_are_not_there_are_told_and_rows_without_a_file_refused(paired_folder):
    table = paired_folder / "slices.csv"
    table.write_text(table.read_text() + "99_0.png,p99\n99_1.png,p99\n")
    assert source.open_folder(paired_folder).remarks == (
        "slices.csv names 99_0 and 1 more, which are not in the folder.",
    )
    table.write_text(table.read_text() + ",p98\n")
    with pytest.raises(StudyError, match="names the patient p98 without a file"):
        source.open_folder(paired_folder)


@pytest.mark.parametrize("name", MISSING[:6])
def test_a_patient_may_be_called_so_from_the_folder_to_the_split(paired_folder, tmp_path, name):
    rewrite(paired_folder, lambda file, patient, number: f"{file},{name if patient == 'p00' else patient}")
    assert patients(paired_folder).count(name) == 3
    study = Study.of_profile("smoke", dataset="paired_folder", data_dir=str(paired_folder))
    store = slices.prepare(study, tmp_path / "processed")
    split = splits.prepare(store, study)
    assert sum(len(split.rows(store, side)) for side in splits.SIDES) == len(store) == 36
    assert store.slices["patient_id"].tolist().count(name) == 3 and name in split.sides


def test_names_of_a_mac_are_those_of_others(paired_folder):
    for kind, form in (("images", "NFD"), ("masks", "NFC")):
        for number in range(3):
            old = paired_folder / kind / f"00_{number}.png"
            old.rename(old.with_name(unicodedata.normalize(form, f"Müller_{number}.png")))
    rewrite(paired_folder, lambda file, patient, number: f"{file.replace('00_', DECOMPOSED + '_')},{patient}")
    assert [pair.scan_id for pair in source.open_folder(paired_folder).cases][:3] == [f"Müller_{n}" for n in range(3)]


def test_slices_are_in_the_order_of_their_numbers(paired_folder):
    for kind in ("images", "masks"):
        for old, new in ((2, 10), (1, 9)):
            (paired_folder / kind / f"00_{old}.png").rename(paired_folder / kind / f"00_{new}.png")
    rewrite(paired_folder, lambda file, patient, _: f"{file.replace('_2', '_10').replace('_1.', '_9.')},{patient}"
            if file.startswith("00_") else f"{file},{patient}")  # fmt: skip
    assert [pair.scan_id for pair in source.open_folder(paired_folder).cases][:3] == ["00_0", "00_9", "00_10"]


def test_dots_in_a_name_are_part_of_it(paired_folder):
    for kind in ("images", "masks"):
        for path in list((paired_folder / kind).iterdir()):
            path.rename(path.with_name(f"1.2.{path.name.replace('_', '.')}"))
    rewrite(paired_folder, lambda file, patient, _: f"1.2.{file.removesuffix('.png').replace('_', '.')},{patient}")
    assert len(patients(paired_folder)) == 36
