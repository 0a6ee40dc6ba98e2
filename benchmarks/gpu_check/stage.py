"""The process of one stage: imports its module, calls `run(settings, record)`, and records how it ended.

python -m benchmarks.gpu_check.stage MODULE RESULT.json SETTINGS-AS-JSON
"""

import importlib
import sys
import traceback
from pathlib import Path

import models  # noqa: F401  switches the telemetry of onnxruntime off before a stage imports it
from benchmarks.gpu_check.report import Recorder, Skip, one_line
from benchmarks.gpu_check.settings import Settings


def main() -> None:
    module, result, settings = sys.argv[1:]
    record = Recorder(Path(result))
    try:
        importlib.import_module(module).run(Settings.from_json(settings), record)
    except Skip as skip:
        record.finish("skipped", str(skip))
    except BaseException as error:  # out of memory, a CUDA error, Ctrl-C: each ends this stage only
        traceback.print_exc()
        record.finish("failed", one_line(error))
    else:
        record.finish("passed")


if __name__ == "__main__":
    main()
