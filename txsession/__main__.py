"""
C{python -m txsession} is the command C{txsession}.
"""

from __future__ import annotations

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
