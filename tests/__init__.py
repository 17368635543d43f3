"""What runs the product: checks of right and wrong, end-to-end tests, and the programs and suites that they use."""
