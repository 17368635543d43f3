"""Run:ai Model Streamer: every tensor of a model's safetensors objects. Its clock begins after its imports. Arguments:
bucket, keys. URL, concurrency and credentials come by its own variables."""

import sys

from figures import Meter
from runai_model_streamer import SafetensorsStreamer

bucket, keys = sys.argv[1], sys.argv[2:]
meter = Meter()
got = 0
with SafetensorsStreamer() as streamer:
    streamer.stream_files([f"s3://{bucket}/{key}" for key in keys])
    for _, tensor in streamer.get_tensors():
        got += tensor.numel() * tensor.element_size()
meter.done(got)
