"""Where fitted bundles are kept: an MLflow registry, a folder, memory; and the copy to go on with when it is down."""
