"""The front door: mounts each package's commands under one script and loads the settings they share."""
