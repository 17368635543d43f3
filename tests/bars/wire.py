"""The bars of the wire: whatever a bucket, an account or a network does, the client does the right thing or says what is wrong."""

from tests.bars.bar import Bar
from tests.checks import lives, vectors, wire_fuzz, wire_names, wire_sdk

BARS = [
    Bar(
        1, "golden-vectors", "every golden vector passes: V1, V4 and CRC-64; all texts of a signature, in the signer and in the endpoint's own verifier",
        "85 signing cases, 6 published ones and 18 CRC cases, no failed test",
        vectors.all_pass, lambda: vectors.wrong("V1"), "one character of one expected V1 signature is changed",
    ),
    Bar(
        2, "official-sdks", "an endpoint that signs again with the official Python SDKs takes a full load in all ways; their clients take our endpoint",
        "V4 and V1, static keys and STS, http and https, path style and virtual-hosted: 16 loads with equal bytes, no call that differs",
        wire_sdk.accepted, wire_sdk.elsewhere, "both endpoints expect another region",
    ),
    Bar(
        3, "credential-renewal", "credentials that live 5 s renew themselves during a load of 30 s: from a file, the RAM role of an ECS instance, the role of a pod",
        "0 failed reads, at least 6 renewals from each source",
        lives.renewed, lives.not_renewed, "the sources stop renewing after 8 s: reads get EACCES, and the log says why",
    ),
    Bar(
        4, "hostile-names", "12,000 keys in nested folders, hostile names among them: mirrored exactly or skipped with a reason",
        f"no difference, nothing outside MODEL_DIR, CPU time per key at most {wire_names.GROWTH_MAX} times that of 3,000 keys",
        wire_names.mirrored, wire_names.one_missing, "one key is not served, one file lies where a hostile name leads, one time is quadratic",
    ),
    Bar(
        5, "fuzzing", "any bytes for a response head, listing, error document, URL, key, configuration, credentials, name or whole connection: no crash, and what is promised holds",
        "no crash of any target, 600 s each",
        wire_fuzz.all_hold, wire_fuzz.planted, "each target's code has a planted bug",
    ),
]
