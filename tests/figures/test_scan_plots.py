"""Pictures of what training sees."""

import numpy as np
import pytest

from sahlib.figures import scan_plots


@pytest.mark.parametrize("kind", ["small", "travelling"])
def test_augmented_slices_are_shown_in_grey_levels_beside_the_slice_as_it_is(request, kind):
    study, store, split = request.getfixturevalue(kind)
    axes = [ax for ax in scan_plots.augmentations(store, split, study).axes if ax.images]
    first, *others = [ax.images[0].get_array() for ax in axes]
    assert len(others) == 8 and (first == store.images[scan_plots.typical_training_slice(store, split)]).all()
    for image in others:
        assert image.min() >= 0 and 100 < image.max() <= 255.01 and not np.array_equal(image, first)
