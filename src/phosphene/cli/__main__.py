"""`python -m phosphene.cli`."""

import sys

from phosphene.cli import main

sys.exit(main())
