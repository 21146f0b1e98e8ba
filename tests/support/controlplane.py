"""A real Kubernetes control plane on loopback for the tests: etcd, API server, controllers, scheduler and kwok.

kwok plays the nodes and their kubelets: pods become Ready without running anything. Where FORESIZE_TEST_KUBECONFIG
names a kubeconfig, that cluster is used instead and nothing is started. The binaries come from
tools/controlplane/build.sh. Nothing of the product is imported here.
"""

import base64
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx2
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.kube_api import ApiError, JsonObject, KubeApi, condition, deployment, wait_until
from tests.support.kwok_stages import READY_AFTER_ANNOTATION, kwok_stages

__all__ = [
    "COMPONENTS",
    "READY_AFTER_ANNOTATION",
    "ApiError",
    "BinariesMissing",
    "ControlPlane",
    "ControlPlaneError",
    "JsonObject",
    "KubeApi",
    "ProcessGroup",
    "condition",
    "deployment",
    "find_binaries",
    "free_port",
    "pinned_kubernetes_version",
    "wait_until",
]

TOOLS = Path(__file__).resolve().parents[2] / "tools" / "controlplane"
COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
API_AND_CONTROLLERS = ("etcd", "kube-apiserver", "kube-controller-manager")
LOG_TAIL_LINES = 30


class ControlPlaneError(RuntimeError):
    """The control plane did not do what it was asked: the message holds the end of the component's log."""


class BinariesMissing(ControlPlaneError):
    """No folder holds the control plane's binaries: the message says what to run."""


def find_binaries() -> Path:
    """The folder with the control plane's binaries, from KUBEBUILDER_ASSETS or the cache; builds nothing."""
    found = subprocess.run([str(TOOLS / "build.sh"), "--find"], capture_output=True, text=True, check=False, timeout=60)
    if found.returncode != 0:
        raise BinariesMissing(found.stderr.strip())
    return Path(found.stdout.strip().splitlines()[-1])


def pinned_kubernetes_version() -> str:
    """The Kubernetes version that tools/controlplane builds, as the server reports it ("v1.36.3")."""
    pinned = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", (TOOLS / "kubernetes/go.mod").read_text(), re.M)
    if pinned is None:
        raise ControlPlaneError(f"no version of k8s.io/kubernetes in {TOOLS / 'kubernetes/go.mod'}")
    return pinned.group(1)


class ProcessGroup:
    """Processes that end together: at `end`, or when this process is gone for whatever reason.

    PR_SET_PDEATHSIG would fire when the *thread* that started a process ends. So all of them are in the process group
    of a shell that waits for the end of its input, which comes when this process is gone, and then kills the group.
    """

    def __init__(self) -> None:
        self._leader = subprocess.Popen(
            ["/bin/sh", "-c", "cat >/dev/null; kill -KILL 0"], stdin=subprocess.PIPE, process_group=0
        )
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, argv: Sequence[str], log: Path, folder: Path) -> subprocess.Popen[bytes]:
        """A process that writes to the end of the log, with the folder as its home and working directory."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={"HOME": str(folder), "PATH": os.environ.get("PATH", os.defpath)},
                process_group=self._leader.pid,
            )
        self._processes.append(process)
        return process

    def end(self) -> None:
        """Kills every process of the group and waits for them."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._leader.pid, signal.SIGKILL)
        for process in self._processes:
            process.wait()
        self._leader.communicate()


@dataclass
class _Component:
    """One process of the control plane, and how to start it again."""

    name: str
    argv: list[str]
    log: Path
    health_url: str
    process: subprocess.Popen[bytes] | None = None

    def failure(self, what: str) -> ControlPlaneError:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:] if self.log.exists() else []
        return ControlPlaneError("\n".join([f"{self.name} {what}; the end of {self.log}:", *lines]))


@dataclass
class ControlPlane:
    """A running control plane between `start` and `stop`, or inside a `with` block."""

    folder: Path | None = None
    """Where the certificates, kubeconfigs, logs and etcd's files go; without one, a temporary folder."""

    node_count: int = 3
    """kwok nodes at the start; none are added to a cluster that was there before."""

    node_capacity: Mapping[str, str] = field(default_factory=lambda: {"cpu": "16", "memory": "64Gi", "pods": "250"})
    """Capacity and allocatable of each of these nodes."""

    pod_ready_seconds: float = 0.0
    """Time from a pod's scheduling to Ready; a pod's annotation READY_AFTER_ANNOTATION overrides it."""

    resize_seconds: float | None = 0.0
    """Time from a resize of a running pod to its status; None leaves every resize pending."""

    controllers_qps: int = 1000
    """Calls a second that each controller may make; the default of Kubernetes, 20, would set the pace of every test."""

    start_timeout_seconds: float = 90.0
    """Longest wait for one component to come up."""

    def __post_init__(self) -> None:
        external = os.environ.get("FORESIZE_TEST_KUBECONFIG")
        self._external = Path(external) if external else None
        self._owns_folder = self.folder is None
        self._components: dict[str, _Component] = {}
        self._processes: ProcessGroup | None = None
        self._opened: list[KubeApi] = []
        self._numbers: Counter[str] = Counter()
        self.kubeconfig = Path()
        """The administrator's kubeconfig, once started."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- life

    @property
    def is_external(self) -> bool:
        """Whether the cluster was there before, so that its components cannot be touched."""
        return self._external is not None

    @property
    def api(self) -> KubeApi:
        """The API as the administrator sees it."""
        if not self._opened:
            raise ControlPlaneError("the control plane is not started")
        return self._opened[0]

    def start(self) -> None:
        """Returns once the API answers, default ServiceAccounts are made and the first nodes are Ready."""
        self.folder = self.folder or Path(tempfile.mkdtemp(prefix="foresize-controlplane-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            if self._external is None:
                self._start_components(find_binaries(), self.folder)
            else:
                self.kubeconfig = self._external
                self.api_for(self.kubeconfig)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends every process at once and forgets the cluster; may be called twice."""
        for api in self._opened:
            api.close()
        self._opened.clear()
        if self._processes is not None:
            self._processes.end()
            self._processes = None
        if self._owns_folder and self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def kill(self, component: str) -> None:
        """Ends one of COMPONENTS as a crash would: no time to say goodbye."""
        process = self._component(component).process
        if process is not None:
            process.kill()
            process.wait()

    def restart(self, component: str) -> None:
        """Starts one of COMPONENTS again on its old port and data, after killing it where it still runs."""
        self.kill(component)
        if component == "kwok":
            # A new kwok waits until the old one's node leases run out; a real kubelet takes its own lease back.
            with contextlib.suppress(ApiError, httpx2.TransportError):
                self.api.request("DELETE", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases")
        self._launch(self._component(component))
        self._wait_for(self._component(component))
        if component in ("etcd", "kube-apiserver") and all(self._is_running(name) for name in API_AND_CONTROLLERS):
            # The controllers, which wait for up to a minute before they look for a server again, are part of the plane.
            with self.namespace("restarted", self.start_timeout_seconds):
                pass

    def _is_running(self, component: str) -> bool:
        process = self._component(component).process
        return process is not None and process.poll() is None

    def pid(self, component: str) -> int:
        """The process id of one of COMPONENTS, to stop (SIGSTOP) or measure it."""
        process = self._component(component).process
        if process is None:
            raise ControlPlaneError(f"{component} was never started")
        return process.pid

    # --- the cluster

    def get(self, path: str, **params: str) -> JsonObject:
        """The object or list at the path, as the administrator sees it."""
        return self.api.get(path, **params)

    def apply(self, manifest: JsonObject) -> JsonObject:
        """The object after the administrator's server-side apply."""
        return self.api.apply(manifest)

    def api_for(self, kubeconfig: Path) -> KubeApi:
        """The API as that kubeconfig's user sees it; closed by `stop`."""
        api = KubeApi.from_kubeconfig(kubeconfig)
        self._opened.append(api)
        return api

    @contextlib.contextmanager
    def namespace(self, prefix: str = "test", timeout_seconds: float = 30) -> Iterator[str]:
        """A new namespace with its default ServiceAccount; deleted with all it holds, without waiting, at the end."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        try:
            account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
            wait_until(lambda: self.get(account), timeout_seconds, f"the default ServiceAccount of {name}")
            yield name
        finally:
            if self._opened:
                with contextlib.suppress(ApiError, httpx2.TransportError):
                    self.api.delete(f"/api/v1/namespaces/{name}")

    def pods(self, namespace: str, selector: str = "") -> list[JsonObject]:
        """The namespace's pods that match the label selector."""
        params = {"labelSelector": selector} if selector else {}
        items: list[JsonObject] = self.get(f"/api/v1/namespaces/{namespace}/pods", **params)["items"]
        return items

    def ready_pods(self, namespace: str, selector: str = "") -> list[JsonObject]:
        """Those of the pods that are Ready and not being deleted."""
        return [
            pod
            for pod in self.pods(namespace, selector)
            if condition(pod, "Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
        ]

    def add_nodes(
        self,
        count: int,
        *,
        capacity: Mapping[str, str] | None = None,
        allocatable: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        prefix: str = "node",
    ) -> tuple[str, ...]:
        """Names of new kwok nodes PREFIX-1, PREFIX-2, … that are Ready; `allocatable` is the capacity if not given."""
        capacity = dict(capacity or self.node_capacity)
        names = []
        for _ in range(count):
            self._numbers[prefix] += 1
            name = f"{prefix}-{self._numbers[prefix]}"
            names.append(name)
            node_labels = {"kubernetes.io/hostname": name, "type": "kwok"} | dict(labels or {})
            self.api.create(
                "/api/v1/nodes",
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {
                        "name": name,
                        "labels": node_labels,
                        "annotations": {"kwok.x-k8s.io/node": "fake"},
                    },
                    "status": {"capacity": capacity, "allocatable": dict(allocatable or capacity)},
                },
            )
        wait_until(lambda: self._usable_nodes() >= set(names), self.start_timeout_seconds, f"nodes {names} to be Ready")
        return tuple(names)

    def remove_nodes(self, names: Sequence[str]) -> None:
        """Deletes the nodes; their pods follow when the garbage collector notices."""
        for name in names:
            self.api.delete(f"/api/v1/nodes/{name}")

    def kubeconfig_for(
        self, user: str, rules: Sequence[Mapping[str, Sequence[str]]], namespace: str | None = None
    ) -> Path:
        """The kubeconfig of a ServiceAccount that may do what the RBAC rules say, and no more than anybody else.

        The rules hold in the namespace where one is given, else in the whole cluster.
        """
        home = namespace or "default"
        role, binding = ("Role", "RoleBinding") if namespace else ("ClusterRole", "ClusterRoleBinding")
        scope = {"namespace": namespace} if namespace else {}
        rbac = "rbac.authorization.k8s.io"
        account = {"name": user, "namespace": home}
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
        self.apply(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": role,
                "metadata": {"name": user} | scope,
                "rules": [{key: list(values) for key, values in rule.items()} for rule in rules],
            }
        )
        self.apply(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": binding,
                "metadata": {"name": user} | scope,
                "roleRef": {"apiGroup": rbac, "kind": role, "name": user},
                "subjects": [{"kind": "ServiceAccount"} | account],
            }
        )
        token = self.api.create(
            f"/api/v1/namespaces/{home}/serviceaccounts/{user}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": 3600},
            },
        )["status"]["token"]
        path = self._folder / f"{user}.kubeconfig"
        config: JsonObject = yaml.safe_load(self.kubeconfig.read_text())
        current = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
        cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == current["cluster"])
        _write_kubeconfig(path, cluster, {"token": token})
        self._wait_for_rules(path, rules, home)
        return path

    # --- inside

    @property
    def _folder(self) -> Path:
        if self.folder is None:
            raise ControlPlaneError("the control plane is not started")
        return self.folder

    def _component(self, name: str) -> _Component:
        if self.is_external:
            raise ControlPlaneError(f"{name} belongs to the cluster of FORESIZE_TEST_KUBECONFIG: leave it alone")
        if name not in self._components:
            raise ControlPlaneError(f"no component {name!r} is started: name one of {', '.join(COMPONENTS)}")
        return self._components[name]

    def _usable_nodes(self) -> set[str]:
        return {
            node["metadata"]["name"]
            for node in self.get("/api/v1/nodes")["items"]
            if condition(node, "Ready") == "True" and not node["spec"].get("taints")
        }

    def _wait_for_rules(self, kubeconfig: Path, rules: Sequence[Mapping[str, Sequence[str]]], namespace: str) -> None:
        """Returns once the authoriser has seen the rules, a moment after they were written."""
        wanted = [(set(r["verbs"]), set(r["resources"])) for r in rules if "resources" in r]
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        api = self.api_for(kubeconfig)

        def all_seen() -> bool:
            answer = api.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", review)
            seen = [(set(r["verbs"]), set(r.get("resources", ()))) for r in answer["status"]["resourceRules"]]
            return all(
                any(verbs <= seen_verbs and resources <= seen_resources for seen_verbs, seen_resources in seen)
                for verbs, resources in wanted
            )

        wait_until(all_seen, 20, f"the rules of {kubeconfig.stem} to hold")

    def _start_components(self, binaries: Path, folder: Path) -> None:
        etcd_port, peer_port, api_port, controllers_port, scheduler_port, kwok_port = (free_port() for _ in range(6))
        etcd_url = f"http://127.0.0.1:{etcd_port}"
        server = f"https://127.0.0.1:{api_port}"
        health_by_name = {
            "etcd": f"{etcd_url}/health",
            "kube-apiserver": f"{server}/readyz",
            "kube-controller-manager": f"https://127.0.0.1:{controllers_port}/healthz",
            "kube-scheduler": f"https://127.0.0.1:{scheduler_port}/readyz",
            "kwok": f"http://127.0.0.1:{kwok_port}/healthz",
        }
        ca = _write_certificates(folder)
        serving = [
            "--bind-address=127.0.0.1",
            f"--tls-cert-file={folder / 'server.crt'}",
            f"--tls-private-key-file={folder / 'server.key'}",
        ]
        kubeconfigs = _write_tokens(folder, server, ca)
        self.kubeconfig = kubeconfigs["admin"]
        (folder / "kwok.yaml").write_text(kwok_stages(self.pod_ready_seconds, self.resize_seconds))
        arguments_by_name = {
            "etcd": [
                f"--data-dir={folder / 'etcd'}",
                f"--listen-client-urls={etcd_url}",
                f"--advertise-client-urls={etcd_url}",
                f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            ],
            "kube-apiserver": [
                f"--etcd-servers={etcd_url}",
                *serving,
                f"--secure-port={api_port}",
                "--advertise-address=127.0.0.1",
                f"--cert-dir={folder}",
                f"--token-auth-file={folder / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                "--endpoint-reconciler-type=none",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-signing-key-file={folder / 'service-accounts.key'}",
                f"--service-account-key-file={folder / 'service-accounts.key'}",
                "--profiling=false",
            ],
            "kube-controller-manager": [
                f"--kubeconfig={kubeconfigs['system:kube-controller-manager']}",
                f"--service-account-private-key-file={folder / 'service-accounts.key'}",
                f"--root-ca-file={folder / 'ca.crt'}",
                "--use-service-account-credentials=true",
                "--leader-elect=false",
                f"--kube-api-qps={self.controllers_qps}",
                f"--kube-api-burst={2 * self.controllers_qps}",
                *serving,
                f"--secure-port={controllers_port}",
            ],
            "kube-scheduler": [
                f"--kubeconfig={kubeconfigs['system:kube-scheduler']}",
                "--leader-elect=false",
                "--kube-api-qps=1000",
                "--kube-api-burst=2000",
                *serving,
                f"--secure-port={scheduler_port}",
            ],
            "kwok": [
                f"--kubeconfig={self.kubeconfig}",
                f"--config={folder / 'kwok.yaml'}",
                "--manage-all-nodes=true",
                "--node-lease-duration-seconds=40",
                f"--server-address=127.0.0.1:{kwok_port}",
            ],
        }
        self._processes = ProcessGroup()
        for name, arguments in arguments_by_name.items():
            argv = [str(binaries / name), *arguments]
            self._components[name] = _Component(name, argv, folder / f"{name}.log", health_by_name[name])
        for names in (("etcd", "kube-apiserver"), ("kube-controller-manager", "kube-scheduler", "kwok")):
            for name in names:
                self._launch(self._components[name])
            for name in names:
                self._wait_for(self._components[name])
        self.api_for(self.kubeconfig)
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        wait_until(lambda: self.get(account), self.start_timeout_seconds, "the default ServiceAccount")
        try:
            self.add_nodes(self.node_count)
        except TimeoutError as error:
            raise self._components["kwok"].failure(str(error)) from error

    def _launch(self, component: _Component) -> None:
        if self._processes is None:
            raise ControlPlaneError("the control plane is not started")
        component.process = self._processes.start(component.argv, component.log, self._folder)

    def _wait_for(self, component: _Component) -> None:
        tls = ssl.create_default_context(cafile=self._folder / "ca.crt")

        def is_up() -> bool:
            status = component.process.poll() if component.process else None
            if status is not None:
                raise component.failure(f"ended with exit status {status}")
            return httpx2.get(component.health_url, verify=tls, trust_env=False).status_code == 200

        try:
            wait_until(is_up, self.start_timeout_seconds, f"{component.name} to come up")
        except TimeoutError as error:
            raise component.failure(f"did not come up ({error})") from error


def free_port() -> int:
    """A loopback port on which nobody listens, below those that the kernel gives to outgoing connections.

    So a component that is restarted finds its port free. Not from `random`: the seed is the same in all workers.
    """
    for _ in range(100):
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ControlPlaneError("no free port on 127.0.0.1 between 20000 and 31999")


def _write_certificates(folder: Path) -> bytes:
    """The CA in PEM; the server's certificate and key, and the key that signs ServiceAccount tokens, are files."""
    now = datetime.now(UTC)

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    def certificate(
        name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, is_ca: bool
    ) -> x509.CertificateBuilder:
        unused = "content_commitment key_encipherment data_encipherment key_agreement encipher_only decipher_only"
        usage = dict.fromkeys(unused.split(), False)
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(named("foresize-test-ca"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=is_ca, crl_sign=is_ca, **usage), critical=True
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )

    ca_key, server_key, token_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    ca = certificate("foresize-test-ca", ca_key, ca_key, is_ca=True).sign(ca_key, hashes.SHA256())
    names = [
        x509.IPAddress(ip_address("127.0.0.1")),
        x509.DNSName("localhost"),
        x509.DNSName("kubernetes.default.svc"),
    ]
    server = (
        certificate("kube-apiserver", server_key, ca_key, is_ca=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    ca_pem = ca.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.crt").write_bytes(ca_pem)
    (folder / "server.crt").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    for name, key in {"server.key": server_key, "service-accounts.key": token_key}.items():
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        _write_secret(folder / name, pem)
    return ca_pem


def _write_tokens(folder: Path, server: str, ca_pem: bytes) -> dict[str, Path]:
    """Kubeconfigs by user, for the administrator and the components, and the token file that the server reads."""
    group_by_user = {
        "admin": "system:masters",
        "system:kube-controller-manager": "",
        "system:kube-scheduler": "",
    }
    kubeconfigs, lines = {}, []
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca_pem).decode()}
    for user, group in group_by_user.items():
        token = secrets.token_hex(16)
        lines.append(f'{token},{user},{user},"{group}"\n' if group else f"{token},{user},{user}\n")
        kubeconfigs[user] = folder / f"{user.removeprefix('system:')}.kubeconfig"
        _write_kubeconfig(kubeconfigs[user], cluster, {"token": token})
    _write_secret(folder / "tokens.csv", "".join(lines).encode())
    return kubeconfigs


def _write_kubeconfig(path: Path, cluster: JsonObject, user: JsonObject) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": path.stem, "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": path.stem}}],
        "current-context": "test",
    }
    _write_secret(path, yaml.safe_dump(config).encode())


def _write_secret(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
