"""Captures and translations of several threads take turns."""

from __future__ import annotations

import threading

#: Held while torch traces: it patches its globals meanwhile, and two threads would see each other's.
TRACING = threading.RLock()
