"""What becomes of the built products: the check of their ABI, notices, SBOM and the two packages.

Called by dist/build, and the check also by ci/abi and the tests. Compiles nothing.
"""
