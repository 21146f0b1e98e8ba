"""A kubeconfig for a server that only plays one."""

from pathlib import Path

import orjson


def a_kubeconfig(folder: Path, server: str) -> Path:
    """A file in the folder that names the server and one user, who has a token."""
    path = folder / "kubeconfig"
    path.write_bytes(
        orjson.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "secret-token"}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )
    )
    return path
