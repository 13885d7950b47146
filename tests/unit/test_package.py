"""The installed package: versions, public names, package data."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import attnpo


@pytest.fixture(scope="module")
def pyproject(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel_names(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The paths inside a wheel built from a clean copy of the sources (a used tree has leftovers in build/)."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, source)
    shutil.copytree(
        repository / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info")
    )
    wheels = tmp_path_factory.mktemp("wheels")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-w", str(wheels)]
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, str(source)], capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_one_version_everywhere(pyproject: dict) -> None:
    assert pyproject["project"]["version"] == attnpo.__version__ == importlib.metadata.version("attnpo")


def test_import_does_not_wait_for_torch() -> None:
    code = "import sys, attnpo, attnpo.errors; dir(attnpo); print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


@pytest.mark.parametrize("name", attnpo.__all__)
def test_public_names_are_there(name: str) -> None:
    assert name in dir(attnpo)
    assert getattr(attnpo, name) is not None


def test_other_names_are_not_public() -> None:
    with pytest.raises(AttributeError, match="no attribute 'step_scale'"):
        attnpo.step_scale  # noqa: B018


def test_constraints_fix_every_direct_dependency(repository: Path, pyproject: dict) -> None:
    def canonical(requirement: str) -> str:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name is not None
        return re.sub(r"[-_.]+", "-", name[0]).lower()

    lines = (repository / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    project = pyproject["project"]
    wanted = {canonical(line) for line in [*project["dependencies"], *project["optional-dependencies"]["dev"]]}
    assert wanted <= {canonical(pin) for pin in pins}


def test_every_package_data_pattern_matches_a_file(repository: Path, pyproject: dict) -> None:
    package = repository / "src" / "attnpo"
    for pattern in pyproject["tool"]["setuptools"]["package-data"]["attnpo"]:
        assert any(path.is_file() for path in package.glob(pattern)), pattern


@pytest.mark.slow
def test_wheel_holds_every_source_file(wheel_names: set[str], repository: Path) -> None:
    root = repository / "src"
    sources = {path.relative_to(root).as_posix() for path in (root / "attnpo").rglob("*") if path.is_file()}
    sources = {name for name in sources if "__pycache__" not in name}
    assert sources
    assert sources - wheel_names == set()
    assert {name for name in wheel_names if ".dist-info/" not in name} == sources


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern", [r"py\.typed", r"steps/lexicon\.json", r"models/.+\.safetensors", r"report/.+\.css"]
)
def test_wheel_holds_the_data_a_user_needs(wheel_names: set[str], pattern: str) -> None:
    assert any(re.fullmatch("attnpo/" + pattern, name) for name in wheel_names)


def test_no_file_contains_a_local_path(repository: Path) -> None:
    """Absolute paths of one machine work nowhere else."""
    folders = ("src", "tests", "docs", "configs", "benchmarks", "scripts", ".ci")
    kinds = {".py", ".md", ".toml", ".yaml", ".yml", ".sh", ".css", ".html", ""}
    files = [path for path in repository.iterdir() if path.is_file() and (path.suffix in kinds | {".txt"})]
    files += [path for folder in folders for path in (repository / folder).rglob("*") if path.suffix in kinds]
    place = re.compile(r"(?<![\w.~{}*-])/(?:work|home|root|Users)/")
    found = [
        f"{path.relative_to(repository)}:{number}"
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if place.search(line)
    ]
    assert found == []
