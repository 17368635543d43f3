"""What the demo, the bars and the end-to-end tests stand on: paths, endpoint, managed runs, request log."""
