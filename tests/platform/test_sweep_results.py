"""Results of sweeps survive their files, and what is not one is refused by name."""

from __future__ import annotations

import csv
import io
import json
import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_sweep import made_sweep

from liftgs.scene import BadInput
from liftgs_platform.sweep_results import COMPUTE, SCRATCH, Cell, MultiplierRow, SweepResults, cells_csv, multiplier_csv
from liftgs_platform.typed_json import plain


def tiny(**changes: Any) -> SweepResults:
    cells = (
        Cell(SCRATCH, "", 0.1, 0, {"AP25": [0.25, 0.1 + 0.2, math.nan]}, scenes={"a": math.nan}),
        Cell(SCRATCH, "", 1.0, 1, {"AP25": [0.5, 0.5, 0.5]}),
        Cell("A", "", 0.1, 1, {"AP25": [0.75, 0.5, 0.5], "Acc@.25 all": [0.1]}),
    )
    return replace(
        SweepResults("tiny", "AP25", cells, mixes={"A": {"rooms": 3}}, orderings=(("A", "none"),)), **changes
    )


@pytest.mark.parametrize("name", ["results.json", "results.json.gz"])
def test_every_bit_survives_the_file(tmp_path: Path, name: str) -> None:
    uri = str(tmp_path / name)
    for results in (tiny(), made_sweep({"A": 2.0}, seeds=2, draws=5)):
        results.write(uri)
        back = SweepResults.read(uri)
        assert json.dumps(plain(back), sort_keys=True) == json.dumps(plain(results), sort_keys=True)
        assert (type(back.cells), type(back.orderings)) == (tuple, tuple)
    tiny().write(uri)
    assert math.isnan(SweepResults.read(uri).cells[0].figures["AP25"][2])
    assert ((tmp_path / name).read_bytes()[:2] == b"\x1f\x8b") == name.endswith("gz")


def test_equal_results_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.json.gz", "b.json.gz"):
        tiny().write(str(tmp_path / name))
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_columns_of_all_arms_are_the_same_seeds_and_missing_runs_are_nan() -> None:
    ratios, seeds, scores = tiny().scores(SCRATCH, "AP25")
    assert (ratios.tolist(), seeds, scores.shape) == ([0.1, 1.0], (0, 1), (2, 2, 3))
    assert scores[0, 0, 0] == 0.25
    assert np.isnan(scores[0, 1]).all()
    assert scores[1, 1, 0] == 0.5
    assert tiny().scores("A", "AP25")[1] == seeds
    assert tiny().scores("B", "AP25")[2].shape == (0, 2, 0)


def test_a_control_is_not_mixed_with_its_ordinary_arm() -> None:
    results = made_sweep({"A": 2.0}, seeds=2, draws=3)
    ordinary, controlled = results.scores(SCRATCH, "AP25")[2], results.scores(SCRATCH, "AP25", COMPUTE)[2]
    assert ordinary.shape[0] == 5
    assert controlled.shape[0] == 4
    assert results.arms() == [(SCRATCH, ""), (SCRATCH, COMPUTE), ("A", "")]


@pytest.mark.parametrize(
    ("mend", "reason"),
    [
        (lambda v: v.update(format="liftgs-sweep/9"), "is no liftgs-sweep/1 file"),
        (lambda v: v["cells"][1].update(ratio="half"), r"cells\[1\].ratio is 'half', not float"),
        (lambda v: v["cells"][1].update(seed=True), r"cells\[1\].seed is 'True', not int"),
        (lambda v: v["cells"][1].update(control="twice"), r"cells\[1\].control is 'twice', not '' or 'compute'"),
        (lambda v: v["cells"][1]["figures"].update(AP25=[0.5, "x", 0.5]), r"cells\[1\].figures.AP25\[1\] is 'x'"),
        (lambda v: v["cells"][1]["figures"].update(AP25=[0.5]), "has 0 resamples, not 2"),
        (lambda v: v["cells"][1]["figures"].update(AP25=[]), "has no value"),
        (lambda v: v["cells"][1].update(ratio=-0.1), "not a share"),
        (lambda v: v["cells"][1].update(ratio=None), "not a share"),
        (lambda v: v["cells"].append(v["cells"][0]), "is there twice"),
        (lambda v: v["cells"][1].pop("mix"), r"cells\[1\] lacks 'mix'"),
        (lambda v: v["cells"][1].update(colour=1), r"cells\[1\] has 'colour', unknown"),
        (lambda v: v.update(stages=[{"kind": "cook"}]), "lacks 'name'"),
        (lambda v: v.update(cells=3), "cells is '3'"),
    ],
)
def test_what_is_no_sweep_is_refused_by_name(tmp_path: Path, mend: Any, reason: str) -> None:
    file = tmp_path / "results.json"
    tiny().write(str(file))
    value = json.loads(file.read_bytes())
    mend(value)
    file.write_text(json.dumps(value))
    with pytest.raises(BadInput, match=reason) as fault:
        SweepResults.read(str(file))
    assert fault.value.uri == str(file)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "results.json.gz"
    tiny().write(str(file))
    whole = file.read_bytes()
    for bytes_there in (whole[: len(whole) // 2], whole[:12] + b"\xff\xff" + whole[14:], b"[]", b"\xff\xfe", b""):
        file.write_bytes(bytes_there)
        with pytest.raises(BadInput):
            SweepResults.read(str(file))
    with pytest.raises(FileNotFoundError):
        SweepResults.read(str(tmp_path / "nothing.json"))


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("liftgs_platform.typed_json._MOST_BYTES", 1000)
    file = tmp_path / "results.json.gz"
    packer = zlib.compressobj(wbits=31)
    file.write_bytes(packer.compress(b" " * 100_000) + packer.flush())
    with pytest.raises(BadInput, match="more than"):
        SweepResults.read(str(file))


def test_cells_csv_has_a_line_per_network_and_a_column_per_metric() -> None:
    named = tiny(cells=(*tiny().cells, Cell('a "b", c\nd', "", 0.1, 0, {"AP25": [0.5, 0.5, 0.5]})))
    rows = list(csv.DictReader(io.StringIO(cells_csv(named), newline="")))
    assert len(rows) == 4
    by = {(row["mix"], float(row["ratio"]), int(row["seed"])): row for row in rows}
    assert float(by["none", 0.1, 0]["AP25"]) == 0.25
    assert by["none", 0.1, 0]["Acc@.25 all"] == ""
    assert float(by["A", 0.1, 1]["Acc@.25 all"]) == 0.1
    assert by['a "b", c\nd', 0.1, 0]["AP25"] == "0.5"


def test_multiplier_csv_is_read_by_others() -> None:
    rows = [
        MultiplierRow("A", 0.1, 2.25, 1.5, math.inf, "above", 3, "AP25"),
        MultiplierRow("A", None, math.nan, math.nan, math.nan, "", 0, "AP25", undertrained=True),
    ]
    text = multiplier_csv(rows)
    assert text.splitlines()[0] == "mix,ratio,multiplier,low,high,censored,seeds,metric,undertrained"
    first, second = csv.DictReader(io.StringIO(text))
    assert (float(first["ratio"]), float(first["multiplier"]), float(first["high"])) == (0.1, 2.25, math.inf)
    assert (first["undertrained"], second["undertrained"]) == ("False", "True")
    assert (second["ratio"], second["multiplier"], second["censored"]) == ("all", "", "")
