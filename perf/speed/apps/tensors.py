"""An ordinary program: every tensor of a model's safetensors files by numpy or torch, each looked at once. Prints
seconds since the time that it is given (CLOCK_MONOTONIC) and its CPU seconds. Arguments: folder, begin, framework."""

import json
import pathlib
import resource
import sys
import time

from safetensors import safe_open

folder, begin, framework = pathlib.Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
count = total = 0
for path in sorted(folder.rglob("*.safetensors")):
    with safe_open(path, framework) as file:
        for name in file.keys():
            tensor = file.get_tensor(name)
            count += 1
            total += tensor.nbytes
            # One byte of each page, so that nothing is left to be loaded.
            tensor.reshape(-1).view(__import__("numpy" if framework == "np" else "torch").uint8)[::4096].sum()
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"secs": time.clock_gettime(time.CLOCK_MONOTONIC) - begin, "cpu_secs": used.ru_utime + used.ru_stime, "tensors": count, "bytes": total}))
