"""The single file that ships: equal input gives equal bytes, and they are the bytes that count."""

from __future__ import annotations

import ast
import dataclasses
import shutil
from pathlib import Path

import golf
from golf.bundle import LEFT_OUT, bundle, bundle_bytes
from golf.config import ContainerConfig, Job, ResourcesConfig, TTTConfig, load_job

PACKAGE = Path(golf.__file__).parent


def job_inside(text: str, tmp_path: Path) -> Job:
    """The job that the file would run."""
    scope: dict[str, object] = {"__name__": "bundled", "__file__": str(tmp_path / "train_gpt.py")}
    exec(compile(text, "train_gpt.py", "exec"), scope)
    import base64
    import json
    import lzma

    content = json.loads(lzma.decompress(base64.b85decode(str(scope["PAYLOAD"]))))
    path = tmp_path / "job.toml"
    path.write_text(content["job"])
    return load_job(path)


def test_a_copy_of_the_package_gives_the_same_bytes_whatever_lies_beside_its_sources(
    tmp_path: Path,
) -> None:
    copy = shutil.copytree(PACKAGE, tmp_path / "golf")
    (copy / "notes.txt").write_text("no source")
    assert bundle(copy, Job()) == bundle(PACKAGE, Job())
    assert bundle_bytes(Job()) == len(bundle(PACKAGE, Job()).encode())


def test_the_job_goes_in_whole_but_for_what_names_a_site(tmp_path: Path) -> None:
    job = Job(
        ttt=TTTConfig(lr=1e-7),
        resources=ResourcesConfig(nodes=3),
        container=ContainerConfig(runtime="pyxis", image="/shared/golf.sqsh"),
    )
    found = job_inside(bundle(PACKAGE, job), tmp_path)
    assert found == dataclasses.replace(Job(), ttt=job.ttt)


def test_it_evaluates_by_itself_what_was_evaluated_over_a_pipeline(tmp_path: Path) -> None:
    """It has no Ray; strict gives the scores of as many workers as adapted."""
    strict, pipelined = Job(), Job(ttt=TTTConfig(schedule="pipelined"))
    assert job_inside(bundle(PACKAGE, pipelined), tmp_path) == strict
    assert bundle(PACKAGE, pipelined) == bundle(PACKAGE, strict)


def test_nothing_inside_needs_what_is_left_out() -> None:
    """But for the command line's other commands, and what puts the file together."""
    known = {
        ".".join(("golf", *path.relative_to(PACKAGE).with_suffix("").parts)): path
        for path in PACKAGE.rglob("*.py")
    }
    assert set(LEFT_OUT) <= set(known)
    for name in set(known) - set(LEFT_OUT) - {"golf.cli"}:
        nodes = ast.walk(ast.parse(known[name].read_text()))
        wanted = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not wanted & set(LEFT_OUT), name


def test_another_job_or_a_changed_source_gives_another_file(tmp_path: Path) -> None:
    copy = shutil.copytree(PACKAGE, tmp_path / "golf")
    before = bundle(copy, Job())
    assert bundle(copy, Job(ttt=TTTConfig(lr=0.5))) != before
    (copy / "clock.py").write_text("changed = True\n")
    assert bundle(copy, Job()) != before
