"""`python -m golf`: the same as the `golf` command."""

import sys

from golf.cli import main

if __name__ == "__main__":
    sys.exit(main())
