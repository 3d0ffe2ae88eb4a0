"""The CPU image for the tests: built from its Dockerfile, kept until an ingredient changes."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from slurm_site import SYSTEM_PATH

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("ch-image", "ch-run", "debootstrap")


def cpu_image() -> Path | str:
    """The image's folder, built if need be, or why there is none.

    GOLF_TEST_IMAGE in the environment names one that is to be used as it is.
    """
    if "GOLF_TEST_IMAGE" in os.environ:
        return Path(os.environ["GOLF_TEST_IMAGE"])
    absent = [tool for tool in TOOLS if shutil.which(tool, path=SYSTEM_PATH) is None]
    if absent or os.geteuid() != 0:
        return "building the image needs root, and apt-get install charliecloud debootstrap"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "golf-launch"
    image = cache / f"cpu-image-{_ingredients()}"
    if not image.exists():
        cache.mkdir(parents=True, exist_ok=True)
        for older in cache.glob("cpu-image-*"):
            shutil.rmtree(older)
        words = [str(ROOT / "containers/charliecloud.sh"), str(image), sys.executable]
        done = subprocess.run(words, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return image


def _ingredients() -> str:
    files = [*sorted((ROOT / "containers").iterdir()), ROOT / "constraints.txt"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]
