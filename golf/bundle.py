"""The code that ships: all that trains, quantizes and evaluates, as the text of one Python file.

1. The package's sources are taken in the order of their names, without what no record needs.
2. The job goes in with every key spelled out, but for what names a site: machines and containers;
   its evaluation is strict, which needs no Ray and gives the scores of the pipelined schedule.
3. Both are compressed into `bundled.py`, which unpacks and runs them.

Equal sources and an equal job give equal bytes. Those are the bytes that a budget counts as code.
"""

from __future__ import annotations

import base64
import functools
import json
import lzma
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from golf.config import Job, job_to_sections

RUNNER = "bundled.py"
LEFT_OUT = (
    "golf.bench",
    "golf.bundle",
    "golf.bundled",
    "golf.stage",
    "golf.data.download",
    "golf.data.encode",
    "golf.data.hub",
    "golf.data.prepare",
    "golf.evaluate.probe",
    "golf.evaluate.split",
)
"""What makes shards or bundles, measures speed or serves the launcher; it trains no record."""
SITE_SECTIONS = ("fanout", "resources", "container")
_SLOT = 'PAYLOAD = ""'


def bundle(package: Path, job: Job) -> str:
    """The single file, of the `golf` package in that folder and a job."""
    content = {"sources": dict(_sources(package)), "job": _job_text(job)}
    runner = (package / RUNNER).read_text()
    assert runner.count(_SLOT) == 1, "the runner has one place for the payload"
    return runner.replace(_SLOT, f'PAYLOAD = "{_compressed(json.dumps(content))}"')


def bundle_bytes(job: Job) -> int:
    """Bytes of the single file, made of the package that runs now."""
    return len(bundle(Path(__file__).resolve().parent, job).encode())


def _sources(package: Path) -> Iterator[tuple[str, str]]:
    """Source by module; a package's name ends with a dot."""
    for path in sorted(package.rglob("*.py")):
        name = ".".join((package.name, *path.relative_to(package).with_suffix("").parts))
        if name.endswith(".__init__"):
            yield name.removesuffix("__init__"), path.read_text()
        elif name not in LEFT_OUT:
            yield name, path.read_text()


def _job_text(job: Job) -> str:
    """As TOML; every value in use is written alike in JSON."""
    strict = replace(job, ttt=replace(job.ttt, schedule="strict"))
    lines = []
    for section, table in job_to_sections(strict).items():
        if section not in SITE_SECTIONS:
            lines.append(f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


@functools.lru_cache(maxsize=8)
def _compressed(content: str) -> str:
    """Compressed and in base 85; it takes a quarter of a second, and sweeps ask again."""
    packed = lzma.compress(content.encode(), preset=9 | lzma.PRESET_EXTREME)
    return base64.b85encode(packed).decode()
