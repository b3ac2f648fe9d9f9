"""The contract of a metric: inherit `MetricContract` and give the metric.

class TestPacking(MetricContract):
    metric = Packing()
"""

import json
import pickle

import pytest

from crystalgfn.crystallography.atoms import record_of
from crystalgfn.evaluation.describe import Describer
from crystalgfn.evaluation.metrics.base import CrystalSet, Metric
from crystalgfn.evaluation.metrics.registry import BUILT_IN, check_metric
from crystalgfn.evaluation.summary import evaluation


class MetricContract:
    """What every metric does."""

    metric: Metric

    @pytest.fixture
    def samples(self, structures):
        """Described crystals, with the columns of the package and of the metric."""
        import pandas as pd

        describer = Describer(metrics=self.metrics())
        rows = [describer.row(record_of(f"{i}.cif", one, 1)) for i, one in enumerate(structures)]
        frame = pd.DataFrame([{"index": i, **row} for i, row in enumerate(rows)])
        return CrystalSet(frame=frame.assign(unique=True), given=len(frame))

    @classmethod
    def metrics(cls):
        """Those of the package, and the metric where it is none of them."""
        own = () if cls.metric.name in {one.name for one in BUILT_IN} else (cls.metric,)
        return (*BUILT_IN, *own)

    def test_it_passes_the_public_check(self):
        check_metric(self.metric)

    def test_it_is_a_metric_that_travels(self):
        assert isinstance(self.metric, Metric)
        assert pickle.loads(pickle.dumps(self.metric)).name == self.metric.name

    def test_columns_do_not_depend_on_other_crystals(self, structures):
        describer = Describer(metrics=())
        once = [self.metric.columns(describer.crystal(record_of("a", one, 1))) for one in structures]
        again = [self.metric.columns(describer.crystal(record_of("b", one, 1))) for one in reversed(structures)]
        assert [dict(one) for one in once] == [dict(one) for one in reversed(again)]

    def test_its_figures_are_in_the_summary_and_in_the_text(self, samples):
        found = evaluation(samples, metrics=self.metrics())
        keys, text = json.loads(json.dumps(found.to_dict())), found.text()
        assert set(keys) >= {"given", "readable", "seconds"} | set(self.keys(found))
        for verdict in self.metric.verdict(found[self.metric.name], None):
            assert f"| {verdict.name} | {verdict.figure} |" in text

    def keys(self, found):
        """The metric's own keys of ``summary.json``."""
        from crystalgfn.evaluation.summary import plain_value

        return plain_value(found[self.metric.name])

    def test_the_order_of_the_crystals_changes_no_figure(self, samples):
        turned = CrystalSet(frame=samples.frame.iloc[::-1].reset_index(drop=True), given=samples.given)
        one, other = (evaluation(given, metrics=self.metrics()) for given in (samples, turned))
        assert json.dumps(self.keys(one), default=str) == json.dumps(self.keys(other), default=str)
