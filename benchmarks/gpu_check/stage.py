"""The process of one stage: imports its module, calls `run(settings, record)`, and records the outcome.

python -m benchmarks.gpu_check.stage MODULE RESULT.json SETTINGS-AS-JSON
"""

import importlib
import sys
import traceback
from pathlib import Path

import models  # noqa: F401  disables the telemetry of onnxruntime before a stage imports it
from benchmarks.gpu_check.report import Recorder, Skip, one_line
from benchmarks.gpu_check.settings import Settings


def main() -> None:
    module, result, settings = sys.argv[1:]
    record = Recorder(Path(result))
    try:
        importlib.import_module(module).run(Settings.from_json(settings), record)
    except Skip as skip:
        record.finish("skipped", str(skip))
    except BaseException as error:  # whatever ends this stage, the stages after it still run
        traceback.print_exc()
        record.finish("failed", one_line(error))
    else:
        record.finish("passed")


if __name__ == "__main__":
    main()
