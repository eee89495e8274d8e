import dataclasses

import numpy as np
import pytest

from sahlib.data import grey_window, slices
from sahlib.data.sources.phantom.phantom import Phantom
from sahlib.study import Study, StudyError


@dataclasses.dataclass(frozen=True)
class Listed:
    """A source of grey scans at hand."""

    scans: tuple

    def __len__(self):
        return len(self.scans)

    def __iter__(self):
        return iter(self.scans)


@pytest.fixture(scope="module")
def scans():
    """Every second slice of some phantom patients, in Hounsfield units."""
    return [Phantom(40, 5).scan(k) for k in range(5)]


def exported(scans, level, width):
    return Listed(
        tuple(
            dataclasses.replace(scan, image=slices.window_to_grey(scan.image, level, width), unit="grey")
            for scan in scans
        )
    )


@pytest.mark.parametrize("window", grey_window.KNOWN)
def test_every_known_window_is_told_or_in_doubt_with_its_neighbour(scans, window):
    levels = np.array([grey_window.brain_levels(grey) for scan in exported(scans, *window) for grey in scan.image])
    told = grey_window.told(levels)
    assert told[0] == window and len(told) <= 2


def test_auto_finds_the_window_and_refuses_where_it_cannot(scans):
    assert grey_window.estimated(exported(scans, 127.5, 255)) == (127.5, 255)
    with pytest.raises(StudyError, match="grey_window=auto: the window of these grey levels is none that is known"):
        grey_window.estimated(exported(scans, -500, 100))
    nothing = np.zeros((len(scans[0].image), 64, 64), np.uint8)
    blank = dataclasses.replace(scans[0], image=nothing, labels=nothing, unit="grey")
    with pytest.raises(StudyError, match="none that is known"):
        grey_window.estimated(Listed((blank,)))


def test_a_study_may_leave_the_window_to_be_found(scans):
    study = Study.of_profile("smoke", dataset="paired_folder", data_dir="x", grey_window="auto")
    source = exported(scans, 40, 400)
    assert slices.grey_window(study, source) == (40, 400)
    assert slices.grey_window(dataclasses.replace(study, grey_window="brain"), source) == (40, 80)
    assert slices.grey_window(dataclasses.replace(study, grey_window=""), source) is None
