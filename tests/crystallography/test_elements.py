"""The table of elements against pymatgen."""

import numpy as np
import pytest
from pymatgen.core.periodic_table import Element

from crystalgfn.crystallography import elements

pytestmark = pytest.mark.filterwarnings("ignore:No (data|Pauling)")  # pymatgen announces each missing value

ELEMENTS = [Element.from_Z(z) for z in range(1, 119)]


def test_symbols_and_numbers():
    assert elements.SYMBOLS == tuple(e.symbol for e in ELEMENTS)
    assert elements.NUMBER == {e.symbol: e.Z for e in ELEMENTS}


def test_values_where_pymatgen_has_them():
    assert elements.MASS == pytest.approx([float(e.atomic_mass) for e in ELEMENTS], abs=1e-9)
    assert elements.METAL.tolist() == [e.is_metal for e in ELEMENTS]
    assert elements.NOBLE_GAS.tolist() == [e.is_noble_gas for e in ELEMENTS]
    assert elements.GROUP.tolist() == [e.group for e in ELEMENTS]
    assert elements.ROW.tolist() == [e.row for e in ELEMENTS]
    for i, e in enumerate(ELEMENTS):
        if e.atomic_radius is not None:
            assert elements.RADIUS[i] == pytest.approx(float(e.atomic_radius))
        if not np.isnan(e.X):
            assert elements.ELECTRONEGATIVITY[i] == pytest.approx(e.X)


def test_filled_values():
    radius, chi = elements.RADIUS, elements.ELECTRONEGATIVITY
    assert np.isfinite(radius).all() and (radius > 0.2).all() and (radius < 2.7).all()
    assert np.isfinite(chi).all() and (chi >= 0.7).all() and (chi < 5).all()
    assert radius[elements.NUMBER["Fr"] - 1] == 2.6  # Cordero et al. 2008
    assert chi[elements.NUMBER["Ne"] - 1] == 4.79  # Allen


@pytest.mark.parametrize(
    ("name", "attribute"),
    [("icsd", "icsd_oxidation_states"), ("common", "common_oxidation_states"), ("all", "oxidation_states")],
)
def test_oxidation_states(name, attribute):
    table = elements.OXIDATION_STATES[name]
    assert len(table) == 118
    for states, element in zip(table, ELEMENTS, strict=True):
        assert states == tuple(sorted(set(getattr(element, attribute)) - {0}))


def test_tables_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        elements.MASS[0] = 2.0
