"""boto3: its own transfer with threads, into a file. Arguments: URL, bucket, key, file, connections."""

import os
import sys

import boto3
from boto3.s3.transfer import TransferConfig
from botocore import UNSIGNED
from botocore.config import Config
from figures import Meter

url, bucket, key, out, connections = *sys.argv[1:5], int(sys.argv[5])
config = Config(signature_version=UNSIGNED, max_pool_connections=connections, s3={"addressing_style": "path"})
client = boto3.client("s3", endpoint_url=url, region_name="us-east-1", config=config)
transfer = TransferConfig(multipart_chunksize=8 << 20, max_concurrency=connections)
meter = Meter()
client.download_file(bucket, key, out, Config=transfer)
meter.done(os.path.getsize(out))
