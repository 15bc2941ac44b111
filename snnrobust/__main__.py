"""`python -m snnrobust` is the console command."""

import sys

from snnrobust.cli import main

if __name__ == "__main__":
    sys.exit(main())
