"""The SBOM: what is linked into the products, in CycloneDX 1.5.

Called by assemble. Holds no time and no serial number, so that one commit has one SBOM.
"""

from __future__ import annotations

import json
from typing import Any

from dist.package import crates
from dist.package.crates import Crate

NAME = "oss-connector-lib"


def purl(crate: Crate) -> str:
    return f"pkg:cargo/{crate.name}@{crate.version}"


def component(crate: Crate) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library", "bom-ref": purl(crate), "name": crate.name, "version": crate.version, "purl": purl(crate),
        # Old crates write "MIT/Apache-2.0", which is no expression.
        "licenses": [{"expression": crate.licence.replace("/", " OR ")}],
    }
    if crate.checksum:
        found["hashes"] = [{"alg": "SHA-256", "content": crate.checksum}]
    if crate.repository:
        found["externalReferences"] = [{"type": "vcs", "url": crate.repository}]
    return found


def toolchain_components() -> list[dict[str, Any]]:
    """What the compiler and the linker put in by themselves."""
    version, zig_version = crates.toolchain(), crates.zig_version()
    return [
        {
            "type": "library", "bom-ref": "rust-std", "name": "rust-std", "version": version,
            "licenses": [{"expression": "MIT OR Apache-2.0"}],
        },
        {
            "type": "library", "bom-ref": "zig-compiler-rt", "name": "zig-compiler-rt", "version": zig_version,
            "licenses": [{"expression": "MIT"}],
        },
    ]


def document(linked: list[Crate]) -> dict[str, Any]:
    version = crates.version()
    root = f"pkg:generic/{NAME}@{version}"
    own = [purl(c) for c in linked if c.name in crates.PRODUCTS]
    extra = toolchain_components()
    by_key = {c.key: purl(c) for c in linked}
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "component": {
                "type": "application", "bom-ref": root, "name": NAME, "version": version, "purl": root,
                "licenses": [{"expression": "Apache-2.0"}],
            },
        },
        "components": [component(c) for c in linked] + extra,
        "dependencies": [{"ref": root, "dependsOn": own + [e["bom-ref"] for e in extra]}]
        + [{"ref": purl(c), "dependsOn": [by_key[n] for n in c.needs]} for c in linked],
    }


def text(linked: list[Crate]) -> str:
    return json.dumps(document(linked), indent=1) + "\n"
