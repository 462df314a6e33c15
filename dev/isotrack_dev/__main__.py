"""`python -m isotrack_dev`."""

import sys

from .cli import main

sys.exit(main())
