"""The way to a Kubernetes API server: API objects to a snapshot, commands to API calls, its errors to ours."""
