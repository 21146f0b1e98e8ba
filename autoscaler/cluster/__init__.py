"""What was seen of a cluster and what may be done to it: frozen values, no behaviour beyond reading them. Pure."""
