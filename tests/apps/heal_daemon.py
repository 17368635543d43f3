"""Becomes a daemon as programs do it, then reads files and writes `NAME SHA256` lines. Usage: heal_daemon.py OUT FILE...

The process that was started ends at once; the daemon has another session, / as its folder, and no descriptor
of its start.
"""

import hashlib
import os
import sys
import time

out, files = sys.argv[1], [os.path.abspath(name) for name in sys.argv[2:]]
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir("/")
os.closerange(0, 4096)
# The first one has ended by now, and the engine may have noticed.
time.sleep(0.3)
lines = []
for name in files:
    with open(name, "rb") as file:
        lines.append(f"{os.path.basename(name)} {hashlib.sha256(file.read()).hexdigest()}\n")
with open(out + ".new", "w") as file:
    file.writelines(lines)
os.rename(out + ".new", out)
