"""The source distribution and the wheel hold what they should; the wheel runs when installed alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def checkout() -> list[str]:
    """The files of the checkout, by name."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout, as where the source distribution was unpacked")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    return [name for name in listed if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with a source distribution and the wheel that was built from it."""
    target = tmp_path_factory.mktemp("wheel")
    source = target / "source"
    for name in checkout():  # a copy, so that nothing is built inside the checkout
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(target), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    return target


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.mark.slow
def test_the_source_distribution_holds_the_checkout(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert [name for name in checkout() if not name.startswith(".") and name not in held] == []


@pytest.mark.slow
def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert top == {"tutelage.py", "curate", "train", "eval", "tutelage_recipes"}
    for wanted in ["curate/py.typed", "tutelage_recipes/demo/base/model.safetensors"]:
        assert wanted in names
    for package in ["curate", "train", "eval"]:
        here = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*") if path.is_file()}
        here = {name for name in here if "__pycache__" not in name}
        assert here <= set(names), "a file of the package is missing from the wheel"
    assert not [name for name in names if "test" in name.split("/")[-1]]


@pytest.mark.slow
def test_wheel_runs_alone(wheel: Path, tmp_path: Path) -> None:
    """Installed into an environment of its own, with the dependencies of this one, away from the checkout."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    site = next(path for path in sys.path if path.endswith("site-packages"))
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], check=True, capture_output=True)
    # A directory on PYTHONPATH is read without its .pth files, so the editable install's hook stays out.
    environment = {**os.environ, "PYTHONPATH": site}
    workspace = tmp_path / "workspace"
    for arguments in (
        ["--version"],
        ["init", str(workspace)],
        ["-C", str(workspace), "curate", "import", "examples.jsonl"],
    ):
        done = subprocess.run(
            [tmp_path / "env" / "bin" / "tutelage", *arguments],
            capture_output=True, text=True, env=environment, check=False,
            cwd=workspace if workspace.exists() else tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    done = subprocess.run(
        [python, "-c", "import curate, tutelage, tutelage_recipes.demo as d; print(curate.__file__, d.__file__)"],
        capture_output=True, text=True, cwd=tmp_path, env=environment, check=True,
    )  # fmt: skip
    assert str(ROOT) not in done.stdout
    assert "site-packages" in done.stdout
