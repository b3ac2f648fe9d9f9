"""The shape annotations are live in the tests: a wrong shape, a wrong dtype or inconsistent batches raise."""

import pytest
import torch
from torchtyping import TensorType
from typeguard import typechecked

COMPOSITION = torch.zeros(3, 118, dtype=torch.int64)


@typechecked
def totals(composition: TensorType["batch", 118, torch.int64], scale: TensorType["batch"]) -> TensorType["batch"]:
    return (composition.sum(1) * scale)[: 2 if scale.any() else None]


def test_right_shapes_pass():
    assert totals(COMPOSITION, torch.zeros(3)).shape == (3,)


@pytest.mark.parametrize(
    ("composition", "scale", "message"),
    [
        (COMPOSITION[:, 1:], torch.zeros(3), "117"),
        (COMPOSITION.double(), torch.zeros(3), "float64"),
        (COMPOSITION, torch.zeros(4), "Got both 4 and 3"),
        (COMPOSITION, torch.ones(3), "Got both 2 and 3"),  # the returned value is cut to two rows
    ],
)
def test_wrong_shapes_are_caught(composition, scale, message):
    with pytest.raises(TypeError, match=message):
        totals(composition, scale)


def test_the_package_itself_is_checked():
    """typeguard's import hook loads the package, so that its own functions are checked too."""
    from crystalgfn import errors

    assert type(errors.__spec__.loader).__name__ == "TypeguardLoader"


def test_names_for_type_checkers_only_do_not_stop_the_checks():
    @typechecked
    def both(space: "NotImportedHere", scale: TensorType["batch"], frame: "not_here.Frame") -> None:  # noqa: F821
        """The second argument is still checked."""

    both(object(), torch.zeros(2), None)
    with pytest.raises(TypeError, match="batch"):
        both(object(), torch.zeros(2, 2), None)
