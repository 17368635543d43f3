"""s3fs: its own read of the whole object. Arguments: URL, bucket, key."""

import sys

import s3fs
from figures import Meter

url, bucket, key = sys.argv[1:4]
fs = s3fs.S3FileSystem(anon=True, endpoint_url=url, default_block_size=8 << 20)
meter = Meter()
got = 0
with fs.open(f"{bucket}/{key}", "rb") as file:
    while block := file.read(8 << 20):
        got += len(block)
meter.done(got)
