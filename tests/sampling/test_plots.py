"""Pictures are written whole, for any mixture of crystals, and refuse what does not fit."""

import numpy as np
import pytest
from PIL import Image

import crystalgfn as cg
from crystalgfn.rewards.base import example_crystals
from crystalgfn.sampling import plots
from crystalgfn.sampling.curves import training_curves
from crystalgfn.sampling.plots import samples_picture


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


def panels(monkeypatch, tmp_path, crystals, **options):
    """The titles of the picture's panels."""
    seen = []
    monkeypatch.setattr(plots, "write_aside", lambda path, write: seen.append(write.__closure__[0].cell_contents))
    samples_picture(
        crystals, tmp_path / "a.png", np.arange(len(crystals)), label="energy above hull, eV/atom", **options
    )
    return [ax.get_title() for ax in seen[0].axes], seen[0]


def test_panels_with_one_value_are_left_out(monkeypatch, tmp_path):
    crystals = example_crystals()
    titles, _ = panels(monkeypatch, tmp_path, crystals)
    assert titles == [
        "Predicted energy above hull", "Packing", "Crystal system", "Number of elements", "Elements",
        "Best 7 by energy above hull",
    ]  # fmt: skip
    titles, _ = panels(monkeypatch, tmp_path, cg.Crystals.cat([crystals[1]] * 3))
    assert titles == ["Predicted energy above hull", "Packing", "Best 1 by energy above hull"]
    drawn = cg.Sampler.untrained().sample(30, seed=0)  # many elements
    assert "Elements, % of crystals" in panels(monkeypatch, tmp_path, drawn)[0]


def test_the_best_have_no_short_contacts_and_are_drawn(monkeypatch, tmp_path):
    crystals = example_crystals()
    structures = [one.structure for one in cg.build_structures(crystals, refiner=None, seed=0)]
    crowded = [True] + [False] * (len(crystals) - 1)
    titles, figure = panels(monkeypatch, tmp_path, crystals, structures=structures, crowded=crowded)
    table = next(ax for ax in figure.axes if ax.get_title() == "Best 6 by energy above hull").tables[0]
    names = [table[row, 0].get_text().get_text() for row in range(1, 7)]
    assert names == crystals.formulas()[1:]
    assert titles[-3:] == [
        f"{row['formula']}, {row['symbol']} ({row['space_group']}): {k:.2f}"
        for k, row in list(crystals.to_pandas().iterrows())[1:4]
    ]
    twice = cg.Crystals.cat([crystals[1:2], crystals[1:2]])
    assert "Best 1 by energy above hull" in panels(monkeypatch, tmp_path, twice)[0]


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
