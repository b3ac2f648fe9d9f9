"""Corrections: the Gaussian process is scikit-learn's, the linear one is Bayesian ridge regression in closed form."""

import numpy as np
import pytest

from crystalgfn.discovery.correction import (
    BayesianLinear,
    Correction,
    CorrectionConfig,
    GaussianProcess,
    NoCorrection,
)

ONE = CorrectionConfig(bias=0.3, amplitudes=(0.4,), lengths=(0.8,), noises=(0.05,))


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(12, 3)), rng.normal(size=(7, 3))
    return x, 0.2 * np.sin(x).sum(1) + 0.1, new


def test_the_gaussian_process_is_that_of_scikit_learn(data):
    gaussian = pytest.importorskip("sklearn.gaussian_process")
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels")
    x, y, new = data
    kernel = kernels.ConstantKernel(0.3**2) + kernels.ConstantKernel(0.4**2) * kernels.RBF(0.8)
    kernel += kernels.WhiteKernel(0.05**2)
    theirs = gaussian.GaussianProcessRegressor(kernel, alpha=0.0, optimizer=None).fit(x, y)
    ours = GaussianProcess(ONE)
    ours.fit(x, y)
    mean, std = theirs.predict(new, return_std=True)
    own_mean, own_std = ours.predict(new)
    np.testing.assert_allclose(own_mean, mean, atol=1e-10)
    np.testing.assert_allclose(own_std, std, atol=1e-10)
    assert ours.log_evidence(ours.chosen, x, y) == pytest.approx(theirs.log_marginal_likelihood_value_, abs=1e-9)


def test_the_linear_correction_is_ridge_regression_in_closed_form(data):
    x, y, new = data
    ours = BayesianLinear(ONE)
    ours.fit(x, y)
    # weights of a constant and of the features, with their prior precisions
    rows, further = (np.hstack([np.ones((len(one), 1)), one]) for one in (x, new))
    prior = np.diag([1 / 0.3**2, *[x.shape[1] / 0.4**2] * x.shape[1]])
    covariance = np.linalg.inv(rows.T @ rows / 0.05**2 + prior)
    weights = covariance @ rows.T @ y / 0.05**2
    mean, std = ours.predict(new)
    np.testing.assert_allclose(mean, further @ weights, atol=1e-10)
    np.testing.assert_allclose(std**2, 0.05**2 + ((further @ covariance) * further).sum(1), atol=1e-10)


@pytest.mark.parametrize("model", [GaussianProcess, BayesianLinear])
def test_hyperparameters_are_the_most_probable_of_the_grid(model, data):
    x, y, _ = data
    found = model()
    found.fit(x, y)
    own = found.log_evidence(found.chosen, x, y) + found._log_prior(found.chosen)
    for amplitude in found.config.amplitudes:
        for noise in found.config.noises:
            other = type(found.chosen)(bias=0.2, amplitude=amplitude, length=found.chosen.length, noise=noise)
            assert found.log_evidence(other, x, y) + found._log_prior(other) <= own + 1e-9


@pytest.mark.parametrize("model", [GaussianProcess(), BayesianLinear(), NoCorrection()])
def test_without_residuals_nothing_is_corrected(model):
    assert isinstance(model, Correction)
    model.fit(np.zeros((0, 2)), np.zeros(0))
    mean, std = model.predict(np.ones((3, 2)))
    assert np.array_equal(mean, np.zeros(3)) and (std >= 0).all()


def test_a_constant_error_of_the_space_is_found_by_few_relaxations():
    rng = np.random.default_rng(1)
    x, far = rng.normal(size=(10, 4)), 50 + rng.normal(size=(5, 4))
    model = GaussianProcess()
    model.fit(x, np.full(10, 0.15))
    mean, std = model.predict(far)
    assert (mean > 0.1).all() and (std < 0.2).all()
    assert model.predict(x)[0] == pytest.approx(np.full(10, 0.15), abs=0.01)
