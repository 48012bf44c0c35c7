"""Stands for a child process that a candidate takes all memory in: python -m tests.optimizing.crashing"""

import os
import signal

os.kill(os.getpid(), signal.SIGKILL)
