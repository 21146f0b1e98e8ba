"""The running controller's HTTP: is it alive, is it ready, its metrics, and why it did that."""
