"""End-to-end tests: real programs against the built product and the endpoint. Run by ci/test."""
