"""`python -m launcher.fanout`."""

import sys

from launcher.fanout.cli import main

if __name__ == "__main__":
    sys.exit(main())
