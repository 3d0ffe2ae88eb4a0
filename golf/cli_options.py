"""Options that several commands of `golf` share, and another command line that evaluates.

`option` is the `add_argument` of the command's parser.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS = ".safetensors, or the challenge's final_model.pt or final_model.int6.ptz"


def count(text: str) -> int:
    """A whole number that is not negative."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def eval_options(option: Callable[..., Any]) -> None:
    """Add the options of `golf eval` to a command line."""
    job_options(option)
    run_options(option)
    weights_options(option)
    option("--protocol", choices=("sequential", "sliding", "ttt"), required=True)
    option("--out", type=Path, required=True, metavar="DIR")
    option("--save-nll", action="store_true", help="write nll.npy, one float32 a scored token")
    option("--resume", action="store_true", help="go on after the last recorded chunk, if any")


def weights_options(option: Callable[..., Any], required: bool = True) -> None:
    """Which weights, on which data."""
    option("--data", type=Path, required=required, metavar="DATA")
    option("--tokenizer", type=Path, metavar="F", help="where DATA has none")
    option("--checkpoint", type=Path, metavar="F", help=WEIGHTS)
    option("--artifact", type=Path, metavar="F", help="the artifact of golf quantize")


def job_options(option: Callable[..., Any]) -> None:
    """Which job, with which settings changed."""
    option("--config", type=Path, required=True, metavar="JOB", help="job file (TOML)")
    option("--set", action="append", default=[], metavar="SECTION.KEY=VALUE",
           help="override a setting; repeatable")  # fmt: skip


def run_options(option: Callable[..., Any]) -> None:
    """How a command computes."""
    option("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    option("--dtype", choices=("float32", "bfloat16"), help="default: float32 on the CPU")
    option("--attention", metavar="NAME", help="flash-attention-3, flash-attention-2 or sdpa")
    option("--compile", action=argparse.BooleanOptionalAction, help="default: on a GPU only")
