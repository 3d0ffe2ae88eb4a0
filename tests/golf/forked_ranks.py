"""`python forked_ranks.py N... -- ARGS`: run `golf ARGS` on N ranks, for each N in turn.

What torchrun does, but importing torch once for all: the ranks are forks of this process, joined by
the same environment variables. `{ranks}` in ARGS becomes N. Exits with the number of ranks that
failed.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable

import torch._dynamo  # noqa: F401  what a first optimizer would import, in every rank

import golf.train  # noqa: F401
from golf.cli import main


def fork(work: Callable[[], int]) -> int:
    """The process id of a child that does the work and exits with its result."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = work()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child


def run_ranks(num_ranks: int, arguments: list[str]) -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(num_ranks)}

    def rank_of(rank: int) -> Callable[[], int]:
        def work() -> int:
            os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
            return main([word.replace("{ranks}", str(num_ranks)) for word in arguments])

        return work

    children = [fork(rank_of(rank)) for rank in range(num_ranks)]
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)


if __name__ == "__main__":
    split = sys.argv.index("--")
    sys.exit(sum(run_ranks(int(n), sys.argv[split + 1 :]) for n in sys.argv[1:split]))
