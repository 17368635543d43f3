"""Run:ai Model Streamer: every tensor of one safetensors object into memory. Arguments: bucket, key, bytes. URL,
concurrency and credentials come by its own variables."""

import sys

from figures import Meter
from runai_model_streamer import SafetensorsStreamer

bucket, key = sys.argv[1], sys.argv[2]
meter = Meter()
got = 0
with SafetensorsStreamer() as streamer:
    streamer.stream_file(f"s3://{bucket}/{key}")
    for _, tensor in streamer.get_tensors():
        got += tensor.numel() * tensor.element_size()
meter.done(got)
