"""Holds an SBOM against the schema of CycloneDX: `schema.py FILE` prints each difference.

Called by the tests, with the interpreter of target/venv-check, which has the schemas.
"""

import json
import sys
from pathlib import Path

import cyclonedx.schema
import jsonschema
from referencing import Registry, Resource

SCHEMAS = Path(cyclonedx.schema.__file__).parent / "_res"


def differences(file: Path) -> list[str]:
    document = json.loads(file.read_text())
    # The schema names the others by the address at which their published forms lie.
    known = [
        (f"http://cyclonedx.org/schema/{path.name}", Resource.from_contents(json.loads(path.read_text())))
        for path in SCHEMAS.glob("*.json")
    ]
    schema = json.loads((SCHEMAS / f"bom-{document['specVersion']}.SNAPSHOT.schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema, registry=Registry().with_resources(known))
    return [f"{list(error.path)}: {error.message[:200]}" for error in validator.iter_errors(document)]


if __name__ == "__main__":
    found = differences(Path(sys.argv[1]))
    print("\n".join(found), end="")
    sys.exit(1 if found else 0)
