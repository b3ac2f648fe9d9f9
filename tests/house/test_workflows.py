"""The files for GitHub and Docker fit the project: they parse, and name what exists."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_jobs_with_steps(path):
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(found) >= {"name", True, "jobs", "permissions"}  # YAML reads "on" as true
    for job in found["jobs"].values():
        assert job["timeout-minutes"] and job["runs-on"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])


def test_the_tests_run_on_three_systems_and_every_supported_python():
    matrix = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["tests"]["strategy"]["matrix"]
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"][0] == PROJECT["requires-python"].removeprefix(">=") and "3.13" in matrix["python"]


def test_windows_installs_what_make_test_installs():
    extras = re.findall(r'-e "\.\[([\w,]+)\]"', (ROOT / "Makefile").read_text())
    assert f'-e ".[{extras[-1]}]"' in (ROOT / ".github/workflows/tests.yml").read_text()
    assert set(extras[-1].split(",")) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("name", ["bug", "feature", "question"])
def test_issue_forms_have_fields(name):
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
    assert form["name"] and form["description"]
    assert len({field["id"] for field in form["body"]}) == len(form["body"]) >= 2


def test_the_image_copies_what_exists_and_is_not_ignored():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = {name for line in re.findall(r"^COPY ((?!--).*)$", text, re.M) for name in line.split()[:-1]}
    assert copied == kept and all((ROOT / name).exists() for name in copied)
    assert "USER crystalgfn" in text and 'ENTRYPOINT ["crystalgfn"]' in text
