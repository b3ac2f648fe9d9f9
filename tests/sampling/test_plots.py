"""Pictures are written whole, for any mixture of crystals, and refuse what does not fit."""

import numpy as np
import pytest
from PIL import Image

from crystalgfn.rewards.base import example_crystals
from crystalgfn.sampling.plots import samples_picture, training_curves


def test_with_values_and_a_reference(tmp_path):
    crystals = example_crystals()
    samples_picture(crystals, tmp_path / "a.png", np.linspace(-3, 1, len(crystals)), crystals[:4], np.zeros(4))
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        assert image.size > (1000, 800)
        assert len(image.convert("L").getcolors()) > 50  # not an empty sheet
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("n", [1, 7])
def test_without_values_density_takes_their_place(n, tmp_path):
    crystals = example_crystals()[:n]
    samples_picture(crystals, tmp_path / "density.png")
    samples_picture(
        crystals, tmp_path / "same.png", crystals.density.numpy(), label="density, g/cm³", largest_first=True
    )
    with Image.open(tmp_path / "density.png") as one, Image.open(tmp_path / "same.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_what_does_not_fit_is_refused(tmp_path):
    crystals = example_crystals()
    with pytest.raises(ValueError, match="3 values for 7 crystals"):
        samples_picture(crystals, tmp_path / "a.png", np.zeros(3))
    with pytest.raises(ValueError, match="at least one"):
        samples_picture(crystals[:0], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_curves(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss,log_z\n" + "".join(f"{i},{1 / i},{i}\n" for i in range(1, 40)))
    training_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 800
    (tmp_path / "empty.csv").write_text("step,loss\n")
    with pytest.raises(ValueError, match="no steps"):
        training_curves(tmp_path / "empty.csv", tmp_path / "none.png")
