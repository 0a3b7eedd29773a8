"""``python -m ppcore.cli`` is ``ppcore``."""

import sys

from ppcore.cli import main

sys.exit(main())
