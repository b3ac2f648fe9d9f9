"""A module that only one other imports belongs to that one, unless there is a reason."""

from collections import defaultdict

from tests.house.test_layers import MODULES, imports

BENCHMARK = "a benchmark a module: `crystalgfn benchmark` chooses by name"
COMMAND = "the work of a command, which cli only reads the options of"
CONSTRAINT = "a seam: a kind of constraint a module"
PUBLIC = "public through the package's or the room's own list of names"
HALF = "half of the work of the one that imports it; together above 350 lines"
REASONS = {
    "app.jobs": HALF,
    "app.prompt": HALF,
    "app.results": HALF,
    "app.server": COMMAND,
    "app.views": HALF,
    "benchmarks.ais": HALF,
    "benchmarks.csp.report": BENCHMARK,
    "benchmarks.discovery.run": BENCHMARK,
    "benchmarks.exactness": BENCHMARK,
    "benchmarks.mode_coverage": BENCHMARK,
    "benchmarks.placement": BENCHMARK,
    "benchmarks.profiling": HALF,
    "benchmarks.throughput": BENCHMARK,
    "calculators.contract": PUBLIC,
    "cli.completion": HALF,
    "cli.app": "the entry point of every command of pyproject.toml",
    "cli.options.discovery_commands": HALF,
    "data.cells": HALF,
    "data.formats.cif": "a seam: a file format a module, which the reader loads by name; tables hold CIFs too",
    "data.formats.cif_sites": HALF,
    "discovery.campaign": HALF,
    "discovery.prediction": HALF,
    "discovery.substitution": HALF,
    "envs.constraint_check": PUBLIC,
    "envs.hypergrid": "an environment whose sums are known, for tests as for the benchmark",
    "envs.open_sets": HALF,
    "evaluation.proxy_check.check": COMMAND,
    "evaluation.run": COMMAND,
    "fitting.active_learning": COMMAND,
    "fitting.proxy": COMMAND,
    "gfn.views": HALF,
    "rewards.external": PUBLIC,
    "rewards.shaping": PUBLIC,
    "sampling.display": HALF,
    "space.constraints.composition": CONSTRAINT,
    "space.constraints.elements_and_groups": CONSTRAINT,
    "structures.candidate_pool": HALF,
    "structures.ranking.polymorphs": HALF,
    "structures.refiner.dataset": COMMAND,
    "structures.refiner.training": COMMAND,
}


def test_every_module_with_a_single_user_has_a_reason():
    users = defaultdict(set)
    for name, path in MODULES.items():
        for used in imports(name, path) - {name}:
            users[used].add(name)
    lonely = {
        name.removeprefix("crystalgfn.")
        for name, own in users.items()
        if len(own) == 1 and MODULES[name].name != "__init__.py"
    }
    assert not lonely - set(REASONS), "join each with the module that imports it, or name the reason"
    assert not set(REASONS) - lonely, "these have more users now, or none: take them out"
    assert len(REASONS) <= 40  # 25 are wanted


def test_halves_are_too_long_to_join():
    users = defaultdict(set)
    for name, path in MODULES.items():
        for used in imports(name, path):
            users[used].add(name)
    for name, reason in REASONS.items():
        if reason == HALF:
            (user,) = users[f"crystalgfn.{name}"] - {f"crystalgfn.{name}"}
            lines = [len(MODULES[one].read_text(encoding="utf-8").splitlines()) for one in (f"crystalgfn.{name}", user)]
            assert sum(lines) > 350 + 20, (name, user, lines)  # both have a head
