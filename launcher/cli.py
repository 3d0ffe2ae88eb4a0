"""golf-launch: the command line.

The first word chooses a command; without one it is `run`, so that `golf-launch JOB --seeds ...`
plans, submits, watches, collects and reports. Only the chosen command's module is imported.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from golf.config import ConfigError
from golf.records import RunError
from launcher.errors import LaunchError

COMMANDS = {
    "run": "plan, submit, watch, collect and report (the default)",
    "plan": "show what would run, and every check, without starting it",
    "attach": "watch an experiment again",
    "status": "show how it stands, with the evidence",
    "logs": "print what its stages printed; -f follows",
    "cancel": "stop jobs, with a checkpoint",
    "resume": "run what is missing",
    "collect": "write report.json, report.md and report.html",
    "report": "show the results",
    "compare": "is one better than another, by how much, and how sure are we",
    "submission": "write the challenge's folder, with the code as one file",
    "list": "list the experiments",
    "doctor": "check whether this site is ready",
}
HELP = """\
usage: golf-launch [JOB] --seeds N,N,...
       golf-launch COMMAND ...

Train, quantize and evaluate one model over several seeds, and report what they say together.

{commands}

JOB is a job file or the name of a shipped one: {jobs} (default: record).
EXPERIMENT is a name, a part of one, or a folder; the newest by default.

  golf-launch smoke --seeds 1337,42,7
  golf-launch record --seeds 1337 42 7 --data DATA --set ttt.lr=0.001
  golf-launch smoke --seeds 1,2,3 --sweep ttt.lr=0.01,0.02
  golf-launch attach
  golf-launch compare pr1514 pr1493

Ctrl-C while watching detaches and leaves the jobs running.
`golf-launch COMMAND --help` tells a command's options.
Exit codes: 0 all done and valid, 1 a run failed, 2 wrong usage or an invalid job, 3 a budget,
legality or significance gate failed, 4 seeds are missing, 130 detached.
"""
USAGE_ERROR = 2


class _Parser(argparse.ArgumentParser):
    """Errors in one line, with the nearest option for an unknown one."""

    def error(self, message: str) -> NoReturn:
        raise LaunchError(f"{message}; see {self.prog} --help")

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        arguments, unknown = self.parse_known_args(words)
        if unknown:
            near = difflib.get_close_matches(unknown[0], self._option_string_actions, n=1)
            hint = f"did you mean {near[0]}?" if near else f"see {self.prog} --help"
            raise LaunchError(f"unknown argument {unknown[0]!r}; {hint}")
        return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = sys.argv[1:] if words is None else list(words)
    if words[:1] in ([], ["-h"], ["--help"], ["help"]):
        print(_help(), end="")
        return 0 if words else USAGE_ERROR
    name, rest = (words[0], words[1:]) if words[0] in COMMANDS else ("run", words)
    try:
        return _run(name, rest)
    except (LaunchError, ConfigError, RunError) as error:
        print(f"golf-launch: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has closed it; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" ({error.filename})" if error.filename else ""
        fix = "free some, then repeat the command"
        print(f"golf-launch: {error.strerror}{where}; {fix}", file=sys.stderr)
        return USAGE_ERROR


def _run(name: str, words: Sequence[str]) -> int:
    module = importlib.import_module(f"launcher.commands.{name}")
    parser = _Parser(prog=f"golf-launch {name}", description=COMMANDS[name])
    module.add_arguments(parser)
    exit_code: int = module.main(parser.parse(words))
    return exit_code


def _help() -> str:
    from launcher.spec import shipped_jobs

    commands = "\n".join(f"  {name:<10} {text}" for name, text in COMMANDS.items())
    return HELP.format(commands=commands, jobs=", ".join(shipped_jobs()))


if __name__ == "__main__":
    sys.exit(main())
