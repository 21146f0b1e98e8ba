"""Accuracy and speed, measured beside the peers. Results and how to read them: README.md."""
