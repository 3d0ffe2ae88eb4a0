"""The README's map of the repository and its commands stay in step with the code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_every_module_has_its_line_in_the_tree():
    tree = README.split("<!-- tree -->")[1].split("<!-- /tree -->")[0]
    listed = [line.split()[0] for line in tree.splitlines() if line.strip() and "`" not in line[:3]]
    for package in ("golf", "launcher"):
        for path in (ROOT / package).rglob("*.py"):
            if path.name not in ("__init__.py", "__main__.py"):
                assert path.name in listed, path


@pytest.mark.parametrize("program", ["golf", "golf-launch"])
def test_the_commands_it_shows_exist(program: str, capsys: pytest.CaptureFixture[str]):
    if program == "golf":
        from golf.cli import main
    else:
        from launcher.cli import main
    shown = re.findall(rf"^{program} .*$", README, flags=re.MULTILINE)
    names = {shlex.split(line, comments=True)[1] for line in shown}
    assert names
    for name in names - {"smoke", "record"}:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0, name
        assert "usage" in capsys.readouterr().out
