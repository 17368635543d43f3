"""obstore: ranges of 8 MiB, so many at once; nothing is kept. Arguments: URL, bucket, key, bytes, connections."""

import asyncio
import sys

import obstore
from figures import Meter
from obstore.store import S3Store

url, bucket, key, size, connections = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
PART = 8 << 20


async def main() -> int:
    store = S3Store(bucket, endpoint=url, region="us-east-1", skip_signature=True, virtual_hosted_style_request=False, client_options={"allow_http": True})
    gate = asyncio.Semaphore(connections)

    async def part(start: int) -> int:
        async with gate:
            return len(await obstore.get_range_async(store, key, start=start, end=min(start + PART, size)))

    return sum(await asyncio.gather(*(part(start) for start in range(0, size, PART))))


meter = Meter()
meter.done(asyncio.run(main()))
