"""Who may import whom, and what a quick command must not wait for."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIGHT_GOLF = {"golf", "golf.bundle", "golf.config", "golf.records", "golf.sections"}
HEAVY = ("torch", "numpy", "scipy", "submitit", "ray", "pyarrow", "sentencepiece")
EXECUTOR_FAMILIES = ("local", "slurm")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Every absolute module that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def golf_modules(path: Path) -> set[str]:
    known = {name_of(file) for file in modules("golf")}
    return {name for name in imports(path) if name in known}


@pytest.mark.parametrize("path", modules("golf"), ids=name_of)
def test_golf_knows_no_launcher_and_no_scheduler(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imports(path)}
    assert not tops & {"launcher", "ray", "submitit", "typer"}
    if path.name != "cli.py":
        assert "rich" not in tops


FANOUT = "launcher.fanout"
FRONT = [path for path in modules("launcher") if not name_of(path).startswith(FANOUT)]


@pytest.mark.parametrize("path", FRONT, ids=name_of)
def test_the_launchers_front_takes_only_settings_and_records_from_golf(path: Path) -> None:
    """What runs inside the job, `launcher.fanout`, evaluates; the front never imports it."""
    assert golf_modules(path) <= LIGHT_GOLF
    assert not {"torch", "ray"} & {name.partition(".")[0] for name in imports(path)}
    assert not any(name.startswith(FANOUT) for name in imports(path))


@pytest.mark.parametrize("path", modules("launcher/executors"), ids=name_of)
def test_executors_do_not_import_each_other(path: Path) -> None:
    own = [family for family in EXECUTOR_FAMILIES if path.stem.startswith(family)]
    if not own:
        return
    others = [
        name
        for name in imports(path)
        for family in EXECUTOR_FAMILIES
        if family not in own and name.startswith(f"launcher.executors.{family}")
    ]
    assert not others


@pytest.mark.parametrize("package", ["golf", "launcher"])
def test_no_module_is_imported_in_a_circle(package: str) -> None:
    known = {name_of(path): path for path in modules(package)}
    graph = {
        name: {other for other in _imports_at_start(path) if other in known and other != name}
        for name, path in known.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def _imports_at_start(path: Path) -> Iterator[str]:
    """Modules that importing a file imports; those for type checking only are not."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    "words", [["--help"], ["plan", "smoke", "--seeds", "1,2"], ["status"], ["list"]]
)
def test_quick_commands_import_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    experiment = f"""
import sys
from pathlib import Path
from golf.config import Job, ResourcesConfig
from launcher.experiment import Experiment, ExperimentPaths, Registration
from launcher.stage import Command, Stage
stage = Stage(key="1/train", kind="train", seed=1, resources=ResourcesConfig(),
              commands=(Command(name="train", argv=("true",)),))
Experiment.register(ExperimentPaths(Path("runs/x-1")), Job(),
                    Registration(seeds=(1,), stages=(stage,), asked_job="x"))
from launcher.cli import main
code = main({words!r})
print("HEAVY", [name for name in {HEAVY!r} if name in sys.modules])
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", experiment],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


@pytest.mark.parametrize(
    "module",
    ["golf.bundle", "golf.config", "golf.records", "golf.sections", "golf.stage", "golf.cli"],
)
def test_settings_records_and_stages_need_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
