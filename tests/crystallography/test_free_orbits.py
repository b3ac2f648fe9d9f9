"""Free coordinates against the operations that they come from."""

import numpy as np
import pytest

from crystalgfn.crystallography import space_groups
from crystalgfn.crystallography.orbits import free_orbit, polar_directions
from crystalgfn.crystallography.supergroups import primitive_basis, primitive_orbits


@pytest.mark.parametrize("start", range(1, 231, 46))
def test_every_position_of_every_group(start):
    rng = np.random.default_rng(start)
    for number in range(start, min(start + 46, 231)):
        for position in space_groups.WYCKOFF[number - 1]:
            orbit, parameters = free_orbit(number, position.letter), rng.random(3)
            points = primitive_orbits(number)[position.letter] @ np.append(parameters, 1.0)
            u = orbit.from_parameters @ parameters
            assert orbit.linear @ u + orbit.shift == pytest.approx(points, abs=1e-9)
            assert points == pytest.approx(
                primitive_orbits(number)[position.letter] @ np.append(orbit.to_parameters @ u, 1.0), abs=1e-9
            )
            seen = orbit.inverse @ (points[0] - orbit.shift[0])
            assert seen == pytest.approx(np.where(np.arange(3) < orbit.n_free, u, 0.0), abs=1e-9)
            assert abs(round(np.linalg.det(orbit.inverse))) == 1


def test_no_shorter_period_is_missed():
    """(x, x, x) of a body-centred group comes back after x + 1/2, so that is where its u has gone once round."""
    orbit = free_orbit(229, "f")
    assert orbit.n_free == 1
    assert abs(orbit.to_parameters[0, 0]) == pytest.approx(0.5)


def test_polar_groups():
    polar = [number for number in range(1, 231) if polar_directions(number).shape[1]]
    assert len(polar) == 68
    assert [polar_directions(number).shape[1] for number in (1, 2, 6, 33, 160, 227)] == [3, 0, 2, 1, 1, 0]
    for number in polar:
        directions = polar_directions(number).T @ primitive_basis(number)  # in the conventional cell
        for operation in space_groups.WYCKOFF[number - 1][-1].operations:
            assert directions @ operation[:, :3].T == pytest.approx(directions, abs=1e-9)
