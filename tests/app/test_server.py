"""The server's routes: bad requests get a sentence, strangers nothing, runs and what they found are served."""

import base64
import io
import json
import time
import zipfile

import pandas as pd
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifParser, CifWriter

from crystalgfn.sampling.table import write_table
from tests.app.conftest import ended

SALT = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
SPINEL = Structure.from_spacegroup(
    "Fd-3m", Lattice.cubic(8.25), ["Li", "Mn", "O"], [[0] * 3, [0.625] * 3, [0.3875] * 3]
)


def sampled(work):
    """A runner that writes what ``crystalgfn sample`` writes."""
    (work.folder / "cifs").mkdir(exist_ok=True)
    rows = []
    for i, (structure, group, above) in enumerate(((SALT, 225, 0.2), (SPINEL, 227, 0.01))):
        CifWriter(structure, symprec=0.01).write_file(work.folder / "cifs" / f"{i}.cif")
        formula, a = structure.composition.reduced_formula, structure.lattice.a
        rows.append({
            "formula": formula, "space_group": group, "a": a, "b": a, "c": a, "alpha": 90.0, "beta": 90.0,
            "gamma": 90.0, "n_atoms": len(structure) // 4, "energy_above_hull": above, "energy_above_hull_spread": 0.05,
            "log_r": 0.0, "file": f"cifs/{i}.cif", "origin": "fixed", "closest": 1.0, "density": 2.0,
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    write_table(frame, work.folder)


def test_a_run_is_queued_made_and_shown(served):
    client = served(sampled)
    made = client.post("/api/runs", json={"kind": "sample", "space": {"must": ["Na", "Cl"], "others": False}, "n": 2})
    assert made.status_code == 201
    name = made.json()["id"]
    said = ended(client, name)
    assert said["state"] == "done" and said["title"] == "2 of Na-Cl, stable"
    assert said["commands"][0].startswith("crystalgfn sample sampler=stable n=2 chemsys=Na-Cl seed=0 ")
    assert "sampler.sample(2, space={'chemsys': 'Na-Cl'}, seed=0)" in said["python"]
    best, other = said["candidates"]
    assert (best["formula"], best["symbol"], best["e_above_hull"]) == ("LiMn2O4", "Fd-3m", 0.01)
    assert (other["rank"], other["formula"]) == (2, "NaCl")
    assert 0 <= best["plausibility"] <= 1 and best["reasons"] == ""
    assert [one["id"] for one in client.get("/api/runs").json()] == [name]


def test_structures_pictures_and_downloads(served):
    client = served(sampled)
    name = client.post("/api/runs", json={"kind": "sample"}).json()["id"]
    ended(client, name)
    scene = client.get(f"/api/runs/{name}/r2/structure.json").json()
    assert [one[0] for one in scene["elements"]] == ["Na", "Cl"]
    assert len(scene["atoms"]) == 27 and len(scene["bonds"]) == 54  # the cube of rock salt with all its faces
    cif = client.get(f"/api/runs/{name}/r2/structure.cif")
    assert cif.headers["content-disposition"] == 'attachment; filename="0002_NaCl_225.cif"'
    (read,) = CifParser.from_str(cif.text).parse_structures(primitive=False)
    assert read.matches(SALT)
    archive = zipfile.ZipFile(io.BytesIO(client.get(f"/api/runs/{name}/cifs.zip").content))
    assert sorted(archive.namelist()) == ["0001_LiMn2O4_227.cif", "0002_NaCl_225.cif", "commands.txt"]
    assert client.get(f"/api/runs/{name}/table.csv").text.startswith("formula,")
    pattern = client.get(f"/api/runs/{name}/r2/pattern.svg")
    assert "27.39°, (1 1 1)" in pattern.text and "31.73°, (2 0 0), intensity 100" in pattern.text  # JCPDS 5-628
    assert client.get(f"/api/runs/{name}/r2/phases.svg").json()["error"].startswith("There is no table of known")
    assert client.get(f"/api/runs/{name}/r9/structure.json").status_code == 404


def test_a_phase_diagram_and_what_is_new(served, tmp_path):
    known = pd.DataFrame({
        "formula": ["NaCl", "NaCl3", "Na", "Cl2"], "formation_energy_per_atom": [-2.1, -1.6, 0.0, 0.0],
        "material_id": ["k1", "k2", "k3", "k4"],
    })  # fmt: skip
    known.to_parquet(tmp_path / "known.parquet")
    client = served(sampled, reference=[str(tmp_path / "known.parquet")])
    name = client.post("/api/runs", json={"kind": "sample"}).json()["id"]
    said = ended(client, name)
    assert [one["known"] for one in said["candidates"]] == ["formula not in the reference", "known formula (k1)"]
    svg = client.get(f"/api/runs/{name}/r2/phases.svg").text
    assert "NaCl (k1): on the hull" in svg and "NaCl3 (k2): on the hull" in svg
    assert 'class="chosen above"' in svg and "<title>NaCl (rank 1): 0." in svg


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"kind": "nothing"}, "kind"),
        ({"kind": "sample", "n": 0}, "n: input should be greater"),
        ({"kind": "sample", "n": "many"}, "n: input should be a valid integer"),
        ({"kind": "sample", "space": {"must": ["Qq"]}}, "there is no element 'Qq'"),
        ({"kind": "sample", "space": {"space_groups": [231]}}, "'231' is not an ITA number"),
        ({"kind": "sample", "space": {"prototypes": ["no such"]}}, "no such"),
        ({"kind": "sample", "space": {"n_atoms": [9, 2]}}, "the least, 9, is above the most, 2"),
        ({"kind": "sample", "goal": {"goal": "reward:os.system"}}, "there is no goal"),
        ({"kind": "sample", "out": "/etc"}, "out: extra inputs are not permitted"),
        ({"kind": "predict", "formula": "../../etc/passwd"}, "formula: string should match pattern"),
        ({"kind": "discover"}, "A discovery needs known phases"),
        ({"kind": "evaluate", "files": []}, "files: list should have at least 1 item"),
        ({"kind": "evaluate", "files": [{"name": "../../a.sh", "content": ""}]}, "is no file of crystals"),
        ({"kind": "evaluate", "files": [{"name": "a.cif", "content": "é"}]}, "did not arrive whole"),
        ([], "the request: input"),
    ],
)
def test_a_bad_request_is_one_sentence(served, body, words):
    client = served(sampled)
    answer = client.post("/api/runs", json=body)
    assert answer.status_code == 422
    said = answer.json()["error"]
    assert words in said and said.endswith(".") and "\n" not in said
    assert client.get("/api/runs").json() == []


def test_what_is_no_json_or_too_large(served, monkeypatch):
    client = served(sampled)
    sent = {"headers": {"content-type": "application/json"}}
    assert client.post("/api/runs", content=b'{"kind":', **sent).status_code == 400
    assert client.post("/api/runs", content=b"[" * 100_000, **sent).status_code == 400
    monkeypatch.setattr("crystalgfn.app.server.MOST_BODY", 1000)
    assert client.post("/api/runs", content=b" " * 1001, **sent).json()["error"].startswith("The request is larger")


def test_requests_that_change_something_come_from_the_page(served):
    client = served(sampled)
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert client.post("/api/runs", json={"kind": "sample"}, headers=headers).status_code == 403
    assert client.post("/api/runs", data={"kind": "sample"}).status_code == 415  # what a form of another page can send
    assert client.post("/api/runs", json={"kind": "sample"}, headers={"origin": "http://testserver"}).status_code == 201


def test_a_foreign_name_of_the_server_is_refused(served):
    client = served(sampled, hosts=("127.0.0.1", "localhost"))
    assert client.get("/").status_code == 421
    assert client.get("/", headers={"host": "[bad"}).status_code == 421
    assert client.get("/", headers={"host": "localhost:8000"}).status_code == 200


def test_strangers_need_the_token(served):
    client = served(sampled, token="secret")
    assert client.get("/").status_code == 401 and client.get("/api/runs").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    assert client.get("/api/runs", headers={"authorization": "Bearer secret"}).status_code == 200
    shown = client.get("//evil.example/?token=secret", follow_redirects=False)
    assert shown.status_code == 303 and shown.headers["location"] == "/"
    assert "HttpOnly" in shown.headers["set-cookie"] and "SameSite=strict" in shown.headers["set-cookie"]
    assert client.get("/").status_code == 200


def test_names_of_runs_are_never_paths(served, tmp_path):
    client = served(sampled)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "table.csv").write_text("secret")
    for name in ("..%2Fsecret", "%2e%2e", "..", "secret", "."):
        assert client.get(f"/api/runs/{name}/table.csv").status_code == 404


def test_a_table_that_names_a_file_elsewhere_is_not_followed(served, tmp_path):
    (tmp_path / "outside.cif").write_text(str(CifWriter(SALT)))

    def runner(work):
        sampled(work)
        frame = pd.read_parquet(work.folder / "table.parquet")
        frame["file"] = "../../outside.cif"
        write_table(frame, work.folder)

    client = served(runner)
    name = client.post("/api/runs", json={"kind": "sample"}).json()["id"]
    assert not any(one["has_structure"] for one in ended(client, name)["candidates"])
    assert client.get(f"/api/runs/{name}/r1/structure.cif").status_code == 404


def test_uploads_keep_their_ending_and_lose_their_path(served):
    seen = {}

    def runner(work):
        seen.update({path.name: path.read_bytes() for path in (work.folder / "app" / "uploaded").iterdir()})

    client = served(runner)
    content = base64.b64encode(b"data_x").decode()
    names = ["../../etc/evil name.cif", "POSCAR", "b.CIF"]
    said = client.post(
        "/api/runs", json={"kind": "evaluate", "files": [{"name": one, "content": content} for one in names]}
    ).json()
    done = ended(client, said["id"])
    assert sorted(seen) == ["0000_evil_name.cif", "0001_POSCAR.vasp", "0002_b_CIF.cif"]
    assert set(seen.values()) == {b"data_x"}
    assert "app/uploaded/0001_POSCAR.vasp" in done["commands"][0] and "content" not in json.dumps(done["request"])


def test_answers_carry_the_policy_and_the_page_nothing_inline(served):
    client = served(sampled)
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "<style" not in page.text and "style=" not in page.text and "onclick" not in page.text
    assert page.text.count("<script") == page.text.count("<script src=")
    assert "http" not in page.text.replace("http://www.w3.org", "")  # nothing is fetched from elsewhere
    for name in ("page.js", "viewer.js", "page.css"):
        assert client.get(f"/{name}").status_code == 200


def test_a_report_is_shown_without_the_rights_of_the_page(served):
    def runner(work):
        (work.folder / "report.html").write_text("<script>1</script>")

    client = served(runner)
    name = client.post("/api/runs", json={"kind": "sample"}).json()["id"]
    assert ended(client, name)["report"]
    policy = client.get(f"/api/runs/{name}/report.html").headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts") and "allow-same-origin" not in policy


def test_a_prompt_fills_the_form(served):
    client = served(sampled)
    said = client.post("/api/prompt", json={"text": "cubic Li-Mn-O, shiny"}).json()
    assert said["form"] == {"must": ["Li", "Mn", "O"], "others": False, "crystal_systems": ["cubic"]}
    assert said["not_understood"] == ["shiny"]
    assert client.post("/api/prompt", json={"text": 5}).status_code == 400


def test_goals_without_a_sampler_are_trained_first(served):
    client = served(lambda work: None)
    body = {
        "kind": "sample",
        "space": {"must": ["Ga"], "may": ["N"], "others": False},
        "goal": {"goal": "gap", "gap": 2},
    }
    said = ended(client, client.post("/api/runs", json=body).json()["id"])
    train, sample = said["commands"]
    assert train.startswith("crystalgfn train reward=band_gap_stable reward.gap.value=2 'elements=[Ga,N]'")
    assert f"sampler={train.rpartition('out=')[2]}/sampler" in sample
    assert "cg.rewards.load('band_gap_stable', gap={'value': 2})" in said["python"]


def test_twenty_visitors_at_once_are_queued_and_none_is_lost(served):
    from concurrent.futures import ThreadPoolExecutor

    order = []

    def runner(work):
        order.append(work.job.id)
        time.sleep(0.01)

    client = served(runner)
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(lambda seed: client.post("/api/runs", json={"kind": "sample", "seed": seed}), range(20)))
    names = [one.json()["id"] for one in made]
    assert len(set(names)) == 20
    assert all(ended(client, name)["state"] == "done" for name in names)
    assert order == sorted(names, key=lambda name: int(name.rpartition("_")[2]))


def test_colours_of_a_crystal_can_be_told_apart():
    from crystalgfn.app.views import UNLIKE, _unlike, colours

    for symbols in (["Sr", "Ti", "O"], ["Li", "Mn", "O"], ["K", "Na", "Cl"], ["H", "C", "N", "O"], ["La", "Ce", "Pr"]):
        own = list(colours(symbols).values())
        assert min(_unlike(one, other) for i, one in enumerate(own) for other in own[:i]) >= 0.6 * UNLIKE
    assert colours(["H"])["H"] != "#ffffff" and colours(["Na", "Cl"]) == {"Cl": "#1ff01f", "Na": "#ab5cf2"}
