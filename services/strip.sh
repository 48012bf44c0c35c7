#!/bin/sh
# Leaves of an image's virtual environment what runs, and compiles it. usage: strip.sh VENV
set -eu
cd "$1"
find bin -mindepth 1 -not -name 'python*' -delete
find lib -type d \( -name test -o -name tests -o -name include \) -prune -exec rm -r {} +
find lib -type f \( -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' -o -name '*.a' \) -delete
rm lib/python3.11/site-packages/services/*/Dockerfile lib/python3.11/site-packages/services/*/*.lock
chmod -R a+rX . # whatever the checkout's umask was
# Bytecode is checked against nothing at start: the files never change, and a copy may change their times.
python -m compileall -q --invalidation-mode unchecked-hash lib
