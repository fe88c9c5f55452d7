"""What ``import onnxport`` with its plugin host adds to ``import torch``, and how long the registry takes to compile.

Each figure is taken in fresh processes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

_SCRIPT = """
import json, time
import torch, torch.export
start = time.perf_counter()
import onnxport
imported = time.perf_counter() - start
from onnxport.emit.symbols import Size
from onnxport.emit import builder
start = time.perf_counter()
from onnxport.host.discovery import load
imported += time.perf_counter() - start
start = time.perf_counter()
table = load(None).registry(20)
print(json.dumps({"import": imported, "registry": time.perf_counter() - start, "translations": len(table)}))
"""


def main() -> None:
    runs = []
    for _ in range(6):
        done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    for key, bound in (("import", 0.3), ("registry", 0.05)):
        print(
            f"{key:9} median {statistics.median(r[key] for r in runs[1:]) * 1e3:7.1f} ms  (bound {bound * 1e3:.0f} ms)"
        )
    print(f"translations: {runs[0]['translations']}")


if __name__ == "__main__":
    main()
