"""Train, quantize and evaluate by one file: the training code is inside, compressed.

    python train_gpt.py --data DATA --out OUT --seed 1337     # the whole path, on every GPU here
    python train_gpt.py train --help                          # or its parts, one by one

1. The sources are unpacked in memory and imported from there, whatever else is installed.
2. Without a part's name, the parts run one after the other, training and evaluation on all ranks.
3. The last lines give the result under the labels that the challenge's logs use.
"""

from __future__ import annotations

import argparse
import base64
import importlib.abc
import importlib.util
import json
import lzma
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

PAYLOAD = ""
PARTS = ("train", "quantize", "unpack", "eval", "verify")


class Sources(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports modules from their sources in memory; a package's name ends with a dot."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.sources = sources

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self.sources or self.is_package(fullname):
            return importlib.util.spec_from_loader(fullname, self)
        return None

    def is_package(self, fullname: str) -> bool:
        return f"{fullname}." in self.sources

    def get_source(self, fullname: str) -> str:
        return self.sources[f"{fullname}." if self.is_package(fullname) else fullname]

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.get_source(fullname), f"train_gpt.py:{fullname}", "exec")


def main(words: list[str]) -> int:
    """Run the whole path, or one part of it."""
    content = json.loads(lzma.decompress(base64.b85decode(PAYLOAD)))
    if words[:1] and words[0] in PARTS:
        sys.meta_path.insert(0, Sources(content["sources"]))
        return _part(words)
    parser = argparse.ArgumentParser(prog="train_gpt.py", description="train, quantize, evaluate")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR")
    parser.add_argument("--seed", type=int, default=1337, metavar="N")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    return _all_parts(parser.parse_args(words), content["job"])


def _part(words: list[str]) -> int:
    """A part, with this very file as the code that counts."""
    if words[0] == "quantize":
        words = [*words, "--code", str(Path(__file__).resolve())]
    exit_code: int = importlib.import_module("golf.cli").main(words)
    return exit_code


def _all_parts(arguments: argparse.Namespace, job: str) -> int:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    config, artifact = out / "job.toml", out / "model.golf"
    config.write_text(job)
    shared = ["--config", str(config), *(w for s in arguments.set for w in ("--set", s))]
    data = ["--data", str(arguments.data)]
    seed, resume = ["--seed", str(arguments.seed)], ["--resume"]
    model = ["--checkpoint", str(out / "model.safetensors")]
    ttt = ["--artifact", str(artifact), "--protocol", "ttt", "--out", str(out / "ttt")]
    for ranked, words in (
        (True, ["train", *shared, *data, "--out", str(out), *seed, *resume]),
        (False, ["quantize", *shared, *model, "--out", str(artifact)]),
        (True, ["eval", *shared, *data, *ttt, *resume]),
        (False, ["verify", str(out / "ttt")]),
    ):
        exit_code = subprocess.run([*_start(ranked), *words], check=False).returncode
        if exit_code:
            return exit_code
    _print_result(arguments.seed, out)
    return 0


def _start(ranked: bool) -> list[str]:
    """The start of a command line: one process a GPU where a part is shared among them."""
    here = str(Path(__file__).resolve())
    devices = [path.name for path in Path("/dev").glob("nvidia*")]
    gpus = [name for name in devices if name.removeprefix("nvidia").isdigit()]
    if not ranked or len(gpus) < 2:
        return [sys.executable, here]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launch, f"--nproc_per_node={len(gpus)}", here]


def _print_result(seed: int, out: Path) -> None:
    result = json.loads((out / "ttt" / "result.json").read_text())
    sizes = json.loads((out / "model.golf.json").read_text())
    print(f"seed:{seed}")
    print(f"Total submission size int6+zstd: {sizes['total_bytes']} bytes")
    print(
        f"legal_ttt_exact val_loss:{result['val_loss']:.8f} val_bpb:{result['val_bpb']:.8f} "
        f"eval_time:{1000 * result['seconds']:.0f}ms"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
