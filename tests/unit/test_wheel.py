"""What users install is the client library alone."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path


def test_the_wheel_holds_the_client_library_and_no_generic_name(checkout: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=checkout,
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert tops - {"sluice"} == {name for name in tops if name.endswith(".dist-info")}
    assert "sluice" in tops


def test_importing_the_client_library_needs_neither_prefect_nor_redis(checkout: Path) -> None:
    code = "import sys, sluice; print(sorted({m.partition('.')[0] for m in sys.modules} & {'prefect', 'redis', 'rq'}))"
    said = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"
