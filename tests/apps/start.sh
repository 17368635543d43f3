#!/bin/sh
# An entry point script: looks around first, does not exec. Usage: start.sh PROGRAM ARGS...
mkdir -p "$HOME" >/dev/null 2>&1
date >/dev/null
ls -l "$MODEL_DIR" | wc -l >/dev/null
"$@"
status=$?
echo "done" | cat >/dev/null
exit $status
