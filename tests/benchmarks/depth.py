"""Export time against depth: a Llama of hidden size 64 with 6 to 48 layers.

``python tests/benchmarks/depth.py [--torch]``; with ``--torch``, torch's exporter runs beside it (minutes).
"""

from __future__ import annotations

import argparse
import sys

import onnxport
from export_time import timed, torch_export
from subjects import captured, llama


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", action="store_true")
    options = parser.parse_args()
    print("layers  capture s  onnxport s  of capture  nodes" + ("  torch s" if options.torch else ""))
    onnxport.export(captured(llama(2)))
    for layers in (6, 12, 24, 48):
        subject = llama(layers)
        capture_seconds, program = timed(lambda subject=subject: captured(subject), repeat=1)
        seconds, exported = timed(lambda program=program: onnxport.export(program))
        share = seconds / capture_seconds
        line = f"{layers:6} {capture_seconds:10.2f} {seconds:11.3f} {share:11.3f} {len(exported.model.graph):6}"
        if options.torch:
            line += f" {timed(lambda program=program: torch_export(program), repeat=1)[0]:8.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
