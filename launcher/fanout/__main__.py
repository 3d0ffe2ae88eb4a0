"""`python -m launcher.fanout`."""

import sys

from launcher.fanout.guard import run_guarded

if __name__ == "__main__":
    sys.exit(run_guarded(sys.argv[1:]))
