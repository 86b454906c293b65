"""
The benchmarks work.  What they find is not judged here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .benchmarks.__main__ import main
from .benchmarks.overhead import OURS, PEERS


def test_aTinyRunMeasuresEveryVariantAndTheMemory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    A run of twenty requests for each variant prints a table and writes JSON, in
    which every variant has its microseconds; it would fail at the first response
    that is not as it should be, or if an increment got lost.
    """
    results = tmp_path / "new" / "results.json"
    main(
        [
            "--rounds=1",
            "--requests=20",
            "--sessions=100",
            "--flat-requests=160",
            "--no-pinning",
            f"--json={results}",
        ]
    )
    found: dict[str, Any] = json.loads(results.read_text())
    rows = found["overhead"]["rows"]
    measured = {(row["family"], row["page"]): row["microseconds"] for row in rows}
    assert set(measured) == {(each.family, each.page) for each in [*OURS, *PEERS]}
    assert all(spread["median"] > 0 for spread in measured.values())
    assert found["memory"]["stored"]["payload"] == pytest.approx(300, abs=10)
    assert found["memory"]["stored"]["traced"] > 300
    assert found["memory"]["flat"]["requests"] == 160
    assert found["memory"]["flat"]["unreachable"] == 0
    assert "cookie, counter incremented" in capsys.readouterr().out
