"""stress-ng's stressors of files, mappings and descriptors, each alone, with its own verification on."""

from __future__ import annotations

from tests.suites import PASS, SKIP, Outcomes, Suite, Way

SECS = 1
STRESSORS = (
    "access chmod close copy-file dentry dir dirdeep dup fallocate fault fcntl file-ioctl filename flock fpunch fstat "
    "getdent handle hdd iomix link locka lockf lockofd madvise memfd mincore mlock mmap mmapaddr mmapfixed mmapfork "
    "mmapmany mremap msync munmap open pipe readahead rename revio seek sendfile shm sockfd splice symlink sync-file tee "
    "touch utime vm-splice xattr"
).split()
OPTIONS = {
    "copy-file": ["--copy-file-bytes", "128M"],
    "dirdeep": ["--dirdeep-inodes", "500"],
    "fallocate": ["--fallocate-bytes", "16M"],
    "hdd": ["--hdd-bytes", "16M", "--hdd-opts", "sync,rd-rnd,wr-rnd"],
    "iomix": ["--iomix-bytes", "16M"],
    "mmap": ["--mmap-bytes", "16M", "--mmap-file"],
    "mremap": ["--mremap-bytes", "4M"],
    "msync": ["--msync-bytes", "8M"],
    "readahead": ["--readahead-bytes", "16M"],
    "revio": ["--revio-bytes", "16M"],
    "seek": ["--seek-size", "16M"],
    "sendfile": ["--sendfile-size", "4M"],
    "sync-file": ["--sync-file-bytes", "8M"],
}
# stress-ng's own exit status for "this machine cannot do that": no resource, not implemented.
STATUS_SKIP = (3, 4)


def run(way: Way, stressor: str) -> Outcomes:
    argv = ["stress-ng", "--temp-path", str(way.work), "--verify", "--timeout", f"{SECS}s", "--no-rand-seed"]
    done = way.call([*argv, f"--{stressor}", "1", *OPTIONS.get(stressor, [])], timeout=90)
    if done.returncode in STATUS_SKIP:
        return {stressor: f"{SKIP} {way.explain(done)}"}
    return {stressor: PASS if done.returncode == 0 else way.explain(done)}


SUITE = Suite("stress-ng --verify", STRESSORS, run, short="dup mmap readahead fstat seek".split(), writes=True)
