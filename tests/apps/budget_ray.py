"""A Ray driver: a task and an actor, each in a worker of its own, read every file by map and by read.

Usage: budget_ray.py ADDRESS MODEL_DIR FILE... Prints one JSON line: the sums of `task` and `actor`, and who ran where.
"""

import json
import os
import sys

import ray


def sums(model_dir, names):
    """sha256 of each file, mapped and read, as this process sees it."""
    import hashlib
    import mmap
    import os

    mapped, read = {}, {}
    for name in names:
        try:
            with open(os.path.join(model_dir, name), "rb") as file:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    mapped[name] = hashlib.sha256(data).hexdigest()
                read[name] = hashlib.sha256(file.read()).hexdigest()
        except (OSError, ValueError) as error:
            mapped.setdefault(name, repr(error))
            read.setdefault(name, repr(error))
    return {"pid": os.getpid(), "preload": os.environ.get("LD_PRELOAD"), "map": mapped, "read": read}


class Reader:
    """The same in an actor."""

    def sums(self, model_dir, names):
        return sums(model_dir, names)


def main():
    address, model_dir, *names = sys.argv[1:]
    # Workers take their environment from the node, not from the driver: what the driver changes is handed on.
    changed = {name: value for name, value in os.environ.items() if name.startswith(("CONNECTOR_", "OSS_"))}
    changed["ENABLE_CONNECTOR"] = os.environ["ENABLE_CONNECTOR"]
    ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": changed})
    actor = ray.remote(Reader).remote()
    task = ray.remote(sums).remote(model_dir, names)
    of_task, of_actor = ray.get([task, actor.sums.remote(model_dir, names)], timeout=100)
    print(json.dumps({"driver": os.getpid(), "task": of_task, "actor": of_actor}), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main()
