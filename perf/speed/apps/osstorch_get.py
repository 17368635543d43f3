"""osstorchconnector: one reader, read into one buffer of 8 MiB. Arguments: endpoint, bucket, key, bytes, file of
credentials, file of settings. The endpoint's name must lead to the server (virtual host)."""

import sys

from figures import Meter
from osstorchconnector import OssCheckpoint

endpoint, bucket, key, _, credentials, settings = sys.argv[1:7]
checkpoint = OssCheckpoint(endpoint=endpoint, cred_path=credentials, config_path=settings, region="cn-test")
meter = Meter()
buffer, got = memoryview(bytearray(8 << 20)), 0
with checkpoint.reader(f"oss://{bucket}/{key}") as reader:
    while n := reader.readinto(buffer):
        got += n
meter.done(got)
