"""Run as `python -m`: onnxruntime-genai's model builder, which ends with the process that started it."""

import runpy
import sys

from millrace.lifetime import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    sys.argv[0] = "builder"
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
