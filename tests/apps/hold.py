"""Maps every file of a folder, says `ready` on stdout and stays until it is ended. Usage: hold.py FOLDER"""

import mmap
import os
import sys
import time

maps = []
for parent, _, files in os.walk(sys.argv[1]):
    for name in files:
        path = os.path.join(parent, name)
        if os.path.getsize(path) > 0:
            with open(path, "rb") as file:
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
print(f"ready {sum(len(m) for m in maps)}", flush=True)
time.sleep(600)
