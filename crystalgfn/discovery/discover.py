"""`discover`: a question in, candidates that were relaxed, compared with what is known and ranked, out."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crystalgfn.calculators.base import Calculator
from crystalgfn.calculators.energy_references import References, references_of
from crystalgfn.calculators.registry import DEFAULT, load_calculator
from crystalgfn.crystallography import elements
from crystalgfn.discovery.acquisition import Acquisition, AcquisitionConfig, LowerConfidenceBound
from crystalgfn.discovery.campaign import WORK, Campaign, CampaignPlan
from crystalgfn.discovery.correction import BayesianLinear, Correction, GaussianProcess, NoCorrection
from crystalgfn.discovery.found import Found
from crystalgfn.discovery.goals import Goal, goals_of
from crystalgfn.discovery.phases import CheckedHull, KnownPhases, doubts
from crystalgfn.discovery.proposer import (
    Proposer,
    ProposerConfig,
    Representation,
    last_layer_features,
    structure_features,
)
from crystalgfn.discovery.ranking import rank_relaxed, summary_of
from crystalgfn.discovery.screening import DEFAULT_SCREEN, Screen, ScreenConfig
from crystalgfn.discovery.substitution import asked_space, placing, substitutions
from crystalgfn.errors import CalculatorError, DataError, RewardError
from crystalgfn.evaluation.metrics.base import Metric
from crystalgfn.evaluation.relaxation_job import evaluations_of
from crystalgfn.evaluation.summary import plain_value
from crystalgfn.properties.base import Property
from crystalgfn.properties.registry import load_proxy
from crystalgfn.rewards.base import properties as properties_of
from crystalgfn.sampling.sampler import Sampler
from crystalgfn.sampling.sampler_files import default_sampler, full_name
from crystalgfn.sampling.sharded import run_fingerprint
from crystalgfn.space.space import CrystalSpace
from crystalgfn.utils import provenance
from crystalgfn.utils.files import write_aside
from crystalgfn.utils.run_folder import RunFolder

CORRECTIONS = ("gaussian_process", "last_layer", "none")
SETTINGS = f"{WORK}/settings.json"
SUMMARY = "summary.json"
FREE = ("budget",)
"""May differ between the calls that a campaign is made in: a larger budget goes on."""


def discover(
    space: CrystalSpace | Mapping[str, Any] | None = None,
    budget: int = CampaignPlan.budget,
    calculator: Calculator | str = DEFAULT,
    reference: Any = None,
    out: str | Path | RunFolder | None = None,
    *,
    sampler: Sampler | str | Path | None = None,
    batch: int = CampaignPlan.batch,
    shortlist: int = CampaignPlan.shortlist,
    correction: Correction | str = "gaussian_process",
    acquisition: Acquisition | AcquisitionConfig | None = None,
    proposer: ProposerConfig | None = None,
    energy: Property | str = "formation_energy",
    energy_column: str = "formation_energy_per_atom",
    energy_references: str | None = None,
    scale: str = "charge",
    plausibility: float = CampaignPlan.plausibility,
    seconds: float | None = None,
    steps: int = CampaignPlan.steps,
    max_force: float = CampaignPlan.max_force,
    screening: ScreenConfig | None = DEFAULT_SCREEN,
    goals: Mapping[str, Sequence[float | None]] | Sequence[Goal] = (),
    check_hull: bool = True,
    columns: Sequence[Property | Metric] = (),
    seed: int = 0,
    n_jobs: int = 1,
    progress: bool = True,
    command: str = "crystalgfn.discover",
    sampler_name: str | None = None,
) -> Found:
    """Look for stable crystals of a space: sample, place, relax, learn from what came, again; then rank.

    A round samples crystals and exchanges elements in known prototypes, places a shortlist of them in cells that go
    with the atoms, screens these with a few steps of the calculator, relaxes the batch that the acquisition chooses,
    and corrects the predicted energies in this space by what the calculator said; the next round's samples are
    reweighted by the correction (`crystalgfn.discovery.proposer.Proposer` says how, exactly). Relaxed energies are
    formation energies on the reference's scale and stand above its exact hull. The same call with the ``out`` of one
    that was stopped goes on, to the same table; with a larger budget it goes on from a smaller one.

    Args:
        space: a further constraint on the sampler's space, or constraints by name.
        budget: relaxations.
        calculator: relaxes, see `load_calculator`.
        reference: known phases with formation energies, eV/atom: a file, a database, a list of them, or a table. Their
            structures, where it has some, tell which candidates are known.
        out: the folder; None: ``runs/discover_<time>``.
        sampler: a sampler, a shipped one by name, or its folder; None: "stable", or "stable-any" for metals alone.
        batch: relaxations a round.
        shortlist: crystals a round whose atoms are placed.
        correction: "gaussian_process" (composition, space group, prototype, volume), "last_layer" (Bayesian linear
            regression on the activations of the proxy), "none", or a `Correction` (with the Gaussian process's
            features).
        acquisition: its settings, or another one.
        proposer: how candidates are made. Where it says nothing else, atoms are placed with ``lattice="generate"``, two
            candidates a crystal, and templates from the structures of the reference, or the prototypes of AFLOW where
            it has none.
        energy: the predicted formation energy, or the name of its proxy.
        energy_column: of the reference.
        energy_references: file of the energy references of a calculator of your own.
        scale: of energies above the hull, see `crystalgfn.properties.energy_scale`; the reference and the energies of
            the calculator are on the Materials Project's, "mp2020", and are moved to it.
        plausibility: eV/atom by which crystals are chosen later for each factor of e in their plausibility below 1.
        seconds: no relaxation is begun later than so long after the start; the campaign can then be gone on with.
        steps: of a relaxation, at most.
        max_force: eV/Å at which it has converged.
        screening: of placed crystals, see `crystalgfn.discovery.screening`; None: the proxy alone chooses.
        goals: limits of predicted properties, {name or folder of a proxy: [least, largest]}; what is not predicted to
            lie within is not placed. Their values are columns.
        check_hull: take the shipped hull for choosing candidates where it lies more than 0.1 eV/atom below that of the
            reference, which then lacks known phases, and say where (column ``hull_gap``).
        columns: further properties of the sampled crystals and metrics of the relaxed structures, as columns.
        seed: the same seed gives the same table.
        n_jobs: processes that relax.
        progress: shows a bar.
        command: what the report says that it was made by.
        sampler_name: what a sampler that is given as an object is called in results.

    Raises:
        CalculatorError: there is no such calculator, or it relaxes nothing.
        CheckpointError: the folder holds another campaign or is in use.
        DataError: no reference, one that cannot be read, or one without the elements of the space.
        RewardError: there is no such scale, or a goal that means nothing in the space.
        EmptySpace: nothing is left of the space.
        ValueError: numbers that mean nothing, such as a budget of 0.

    Example:
        >>> found = discover({"chemsys": "Li-Mn-O"}, reference="train.parquet")  # doctest: +SKIP
        >>> found.table[["rank", "formula", "e_above_hull", "known_as"]]  # doctest: +SKIP
    """
    plan = CampaignPlan(
        budget=budget, batch=batch, shortlist=shortlist, seconds=seconds, steps=steps, max_force=max_force,
        calculator=load_calculator(calculator), energy_references=energy_references, n_jobs=n_jobs,
        plausibility=plausibility,
    )  # fmt: skip
    if reference is None:
        raise DataError("a discovery needs known phases with formation energies: reference=<file, database or table>")
    references = references_of(plan.calculator, energy_references)  # better found out before the work
    drawing, name = _sampler_of(sampler, sampler_name, space)
    narrowed = drawing.narrow(dict(space) if isinstance(space, Mapping) else space)
    _check_elements(plan, narrowed)
    wanted = goals_of(goals, narrowed)
    proxy = load_proxy(energy) if isinstance(energy, str) else energy
    model, represent = _correction_of(correction, proxy)
    phases = KnownPhases.read(reference, narrowed.element_numbers, energy_column, scale)
    making, index = placing(proposer or ProposerConfig(), reference, phases, progress)
    choosing = _acquisition_of(acquisition)
    settings = {
        "space": narrowed.to_dict(),
        "sampler": run_fingerprint(drawing),
        "reference": phases.name,
        "phases": len(phases.phases),
        "energy_column": energy_column,
        "scale": scale,
        "calculator": references.calculator,
        "correction": model.name,
        "acquisition": _plain_settings(getattr(choosing, "config", type(choosing).__name__)),
        "proposer": (proposer or ProposerConfig()).settings(),
        "known_structures": len(index or ()),
        "screening": _plain_settings(screening),
        "check_hull": check_hull,
        "goals": [str(one) for one in wanted],
        **{
            name: getattr(plan, name) for name in ("budget", "batch", "shortlist", "steps", "max_force", "plausibility")
        },
        "seed": seed,
    }
    about = {
        "command": command,
        "space": _words_of(space),
        "version": version("crystalgfn"),
        "calculator": references.calculator,
        "seed": seed,
        "sampler": name,
        "sampler_hash": settings["sampler"],
        "machine": provenance.machine(),
        "settings": {name: str(value) for name, value in settings.items() if name not in ("space", "sampler")},
    }
    with _folder_of(out) as folder:
        folder.agree(settings, FREE, file=SETTINGS)
        others = substitutions(index, asked_space(space, narrowed), seed, making.substituted)
        adapted = _adapted(drawing, narrowed, making, seed, folder.path)
        made = Proposer(adapted, narrowed, seed, making, others, wanted)
        screen = None if screening is None else Screen(load_calculator(plan.calculator), references, screening)
        campaign = Campaign(
            folder, made, proxy, _hull_of(phases, check_hull), model, represent, choosing, plan, progress, screen=screen
        )
        _run(campaign)
        return _finish(campaign, phases, references, _columns(drawing, wanted, columns), about)


def _columns(sampler: Sampler, goals: Sequence[Goal], columns: Sequence[Property | Metric]) -> list[Property | Metric]:
    """The properties of the reward and of the goals, and what else was asked for."""
    return [*properties_of(sampler.reward), *(one.prop for one in goals), *columns]


def _sampler_of(
    sampler: Sampler | str | Path | None, name: str | None, space: CrystalSpace | Mapping[str, Any] | None
) -> tuple[Sampler, str]:
    """A sampler, and what it is called; None: the shipped one for the space."""
    if isinstance(sampler, Sampler):
        return sampler, name or "given"
    chosen = default_sampler(space) if sampler is None else sampler
    return Sampler.load(chosen), name or full_name(chosen)


def _hull_of(phases: KnownPhases, check_hull: bool) -> KnownPhases | CheckedHull:
    """By which candidates are chosen."""
    return CheckedHull.of(phases) if check_hull else phases


def _acquisition_of(acquisition: Acquisition | AcquisitionConfig | None) -> Acquisition:
    return (
        LowerConfidenceBound(acquisition)
        if acquisition is None or isinstance(acquisition, AcquisitionConfig)
        else acquisition
    )


def _folder_of(out: str | Path | RunFolder | None) -> Any:
    """The folder as a context; that of a command is entered already."""
    if isinstance(out, RunFolder):
        return nullcontext(out)
    return RunFolder(f"runs/discover_{time.strftime('%Y-%m-%d_%H-%M-%S')}" if out is None else out, "a discovery")


def _run(campaign: Campaign) -> None:
    """Run it; where nothing could be relaxed its work is forgotten, since what is put right is another campaign."""
    try:
        campaign.run()
    except CalculatorError:
        if all(one["error"] for one in campaign.relaxed.values()):
            shutil.rmtree(campaign.folder.path / WORK, ignore_errors=True)
        raise


def _finish(
    campaign: Campaign,
    phases: KnownPhases,
    references: References,
    columns: Sequence[Property | Metric],
    about: dict[str, Any],
) -> Found:
    """Rank what was relaxed and write it down."""
    own = [one for one in columns if isinstance(one, Property)]
    metrics = [one for one in columns if not isinstance(one, Property)]
    ranking = rank_relaxed(campaign.chosen, campaign.relaxed, phases, references, own, metrics)
    hull = campaign.predictor.hull
    table = hull.with_gaps(ranking.table) if isinstance(hull, CheckedHull) else ranking.table
    summary = {
        **about,
        **summary_of(table, campaign.rounds, phases),
        "doubts": doubts(table),
        "budget": campaign.plan.budget,
        "stopped_by": campaign.stopped_by,
        "evaluations": sum(one["evaluations"] for one in campaign.rounds) + evaluations_of(campaign.relaxed.values()),
        "seconds": round(sum(one.get("seconds") or 0.0 for one in campaign.relaxed.values()), 3),
    }
    out = campaign.folder.path
    found = Found(table=table, structures=ranking.structures, phases=phases, summary=summary, out=out, about=about)
    summary["files"] = found.write()
    text = json.dumps(plain_value(summary), indent=2, ensure_ascii=False) + "\n"
    write_aside(out / SUMMARY, lambda path: path.write_text(text, encoding="utf-8"))
    return found


def _correction_of(correction: Correction | str, proxy: Property) -> tuple[Correction, Representation]:
    """The correction, and what it sees of crystals."""
    if not isinstance(correction, str):
        return correction, structure_features
    if correction == "gaussian_process":
        return GaussianProcess(), structure_features
    if correction == "none":
        return NoCorrection(), structure_features
    if correction != "last_layer":
        raise ValueError(f"invalid correction={correction!r}; expected one of {', '.join(CORRECTIONS)}")
    if not hasattr(proxy, "last_layer"):
        raise RewardError(
            f"correction='last_layer' needs a proxy that is an ensemble of networks, and {proxy.name} is none; use "
            "correction='gaussian_process'"
        )
    return BayesianLinear(), last_layer_features(proxy)


def _adapted(sampler: Sampler, space: CrystalSpace, config: ProposerConfig, seed: int, out: Path) -> Sampler:
    """The sampler, fine-tuned in the space where that is asked for; once a campaign."""
    if config.adapt is None:
        return sampler
    folder = out / WORK / "sampler"
    if not folder.exists():
        sampler.adapt(space, seconds=config.adapt, seed=seed).save(folder)
    return Sampler.load(folder, reward=sampler.reward)


def _check_elements(plan: CampaignPlan, space: CrystalSpace) -> None:
    """Refuse a space with elements that the calculator does not know.

    Raises:
        CalculatorError: names them.
    """
    calculator: Any = plan.calculator
    unknown = [elements.SYMBOLS[z - 1] for z in sorted(space.element_numbers) if not calculator.knows([z])]
    if unknown:
        raise CalculatorError(
            f"{calculator.name} does not know {', '.join(unknown)} of the space; give another calculator, or "
            f"excluded_elements=[{','.join(unknown)}]"
        )


def _plain_settings(config: Any) -> Any:
    return asdict(config) if hasattr(config, "__dataclass_fields__") else config


def _words_of(space: CrystalSpace | Mapping[str, Any] | None) -> str:
    """The space in a few words."""
    if space is None:
        return "the sampler's space"
    given = space.to_dict() if isinstance(space, CrystalSpace) else space
    default = CrystalSpace().to_dict()
    return ", ".join(f"{k}={v}" for k, v in given.items() if k not in default or v != default[k]) or "the whole space"
