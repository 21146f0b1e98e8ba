"""The autoscaler's commands: `run`, `webhook` and `explain`. Heavy imports live inside the commands."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from autoscaler.controller.loop import Controller, CycleReport
    from autoscaler.controller.nodes import NodeControl
    from autoscaler.errors import AutoscalerError
    from autoscaler.settings import AutoscalerSettings

LoadSettings = Callable[[Mapping[tuple[str, ...], Any]], "AutoscalerSettings"]
"""How a command asks for its settings: by key path, options that override files and variables; None is not given."""

HELD = 3
"""Exit code of `run --once` where nothing was decided: Prometheus gave no answer, or another copy leads."""
LEASE_WAIT_SECONDS = 12.0
LEASE_LOOKS = 120


def _cluster_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--prometheus", metavar="URL", help="Base address of Prometheus."),
        click.option("--history", type=click.Path(path_type=Path), help="Usage table instead of Prometheus."),
        click.option("--context", metavar="NAME", help="Context of the kubeconfig (default: its current one)."),
        click.option(
            "--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's own, else ~/.kube/config."
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--dry-run", is_flag=True, help="Write nothing at all, whatever the objects' mode: no status either.")
@click.option("--once", is_flag=True, help="One cycle, then exit.")
@click.option("--interval", metavar="DURATION", help="Time between cycles, such as 30s.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), help="Port for health, metrics and decisions; 0 takes a free one."
)
@_cluster_options
@click.pass_obj
def run(
    load: LoadSettings,
    *,
    dry_run: bool,
    once: bool,
    interval: str | None,
    port: int | None,
    kubeconfig: Path | None,
    context: str | None,
    history: Path | None,
    prometheus: str | None,
) -> None:
    """Watch the cluster and size workloads ahead of their demand.

    Looks after every PredictiveAutoscaler. One in mode Observe is told in its status what would be done; in mode Auto
    it is done, and told in Events as well. Of several copies the one that holds the lease decides. Each new decision is
    one JSON line on standard error. Stops on SIGTERM after the write that is under way, and hands the lease over.

    Nodes that an OversubscriptionPolicy selects are oversold as it says: in mode Auto what their pods will not use is
    offered on them.

    With --once the exit code is 0 when the cycle saw everything, 1 when the cluster was not seen, the lease could not
    be read or written, or a write failed, be it of a status only, and 3 when usage could not be read or another copy
    leads, so that everything was held.

    \b
    Examples:
      foresize run                                        every 30 s
      foresize run --once --dry-run --context staging     one look, nothing written
      foresize run --prometheus http://prom:9090 --interval 1m
    """
    from autoscaler.tracing import exported
    from autoscaler.wiring import (
        build_controller,
        build_node_control,
        build_pool_watch,
        close_controller,
        collect_garbage_seldom,
        configure_logging,
        lease_problem,
    )
    from predictor.wiring import build_source

    settings = load(
        {
            ("scaling", "interval"): interval,
            ("scaling", "metrics_port"): port,
            ("prometheus", "url"): prometheus,
        }
    )
    configure_logging()
    collect_garbage_seldom()
    source = build_source(settings, history)
    controller = build_controller(
        settings, is_dry_run=dry_run, kubeconfig=kubeconfig, context=context, source=source, is_patient=once
    )
    pools = build_pool_watch(settings, controller, source)
    nodes = build_node_control(settings, controller, source, is_patient=once)

    try:
        with exported():
            if once:
                _await_lease(controller)
                report = controller.cycle()
                pools(report)
                if nodes is not None and report.problem is None:
                    nodes.look()
                _finish(report, controller.leadership.holder, lease_problem(controller))
            else:
                _run_until_stopped(settings, controller, pools, nodes)
    finally:
        close_controller(controller, nodes)


def _await_lease(controller: "Controller") -> None:
    """Waits until it is clear who leads, at most for as long as a lease that nobody renews lasts."""
    import time

    from autoscaler.errors import ClusterRefused
    from autoscaler.wiring import lease_problem

    for _ in range(LEASE_LOOKS):
        if controller.leadership.is_leader or controller.stop.is_set():
            return
        if isinstance(lease_problem(controller), ClusterRefused):
            return  # no wait mends a role
        time.sleep(LEASE_WAIT_SECONDS / LEASE_LOOKS)


def _finish(report: "CycleReport", holder: str, lease_problem: "AutoscalerError | None") -> None:
    """Ends the process with the exit code that the cycle deserves."""
    if report.problem is not None:
        raise report.problem
    if report.is_standby and lease_problem is not None:
        # Nobody else leads as far as this one knows: it is not let to.
        raise lease_problem
    failed = [r for r in report.records if r.result.outcome.value == "failed"]
    if failed:
        raise click.ClickException(
            f"{len(failed)} of {len(report.records)} workloads could not be scaled, first "
            f"{failed[0].plan.decision.workload}: {failed[0].result.detail}"
        )
    if report.untold is not None:
        raise report.untold
    if report.is_standby:
        click.echo(f"foresize: decided nothing: {holder or 'nobody'} holds the lease", err=True)
        raise click.exceptions.Exit(HELD)
    if not report.is_complete:
        problem = report.forecasts.source_problem if report.forecasts else None
        click.echo(f"foresize: held everything: {problem}", err=True)
        raise click.exceptions.Exit(HELD)


def _run_until_stopped(
    settings: "AutoscalerSettings",
    controller: "Controller",
    after_cycle: "Callable[[CycleReport], None]",
    nodes: "NodeControl | None",
) -> None:
    import signal
    import threading

    import structlog

    from autoscaler.api.app import build_app
    from autoscaler.api.server import start_server
    from predictor.wiring import build_protection

    log = structlog.get_logger("autoscaler.run")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: controller.stop.set())
    protection = build_protection(settings)
    server = start_server(
        build_app(controller, nodes), settings.serving.host, settings.scaling.metrics_port, protection
    )
    log.info(
        "started",
        address=server.address,
        dry_run=controller.is_dry_run,
        paused=settings.scaling.paused,
        interval_seconds=settings.scaling.interval.total_seconds(),
    )
    looks = None if nodes is None else threading.Thread(target=nodes.run, name="nodes", daemon=True)
    if looks is not None:
        looks.start()
    try:
        controller.run(after_cycle)
    finally:
        controller.stop.set()
        if looks is not None:
            looks.join()
        server.stop()
        log.info("stopped")


@click.command()
@click.option("--port", type=click.IntRange(0, 65_535), help="Port that the API server calls; 0 takes a free one.")
@click.option("--context", metavar="NAME", help="Context of the kubeconfig (default: its current one).")
@click.option("--kubeconfig", type=click.Path(path_type=Path), help="Default: the pod's own, else ~/.kube/config.")
@click.pass_obj
def webhook(load: LoadSettings, *, port: int | None, kubeconfig: Path | None, context: str | None) -> None:
    """Change what new pods request, where their owners opted in and an OversubscriptionPolicy in mode Auto allows it.

    Divides the requests of pods in namespaces labelled foresize.io/oversubscribe=true by their nodes' rate
    (RequestAmplification), and has pods labelled foresize.io/reclaimed=true ask for reclaimed resources
    (ExtendedResources). Goes by what `foresize run` tells in the policies' statuses; what is older than a few minutes
    changes nothing. No pod is ever refused, and every pod starts where this does not run.

    \b
    Examples:
      kubectl apply -k deploy/webhook                         on: two copies in the cluster
      kubectl delete mutatingwebhookconfiguration foresize    off: nobody asks any more
      foresize webhook --port 8443                            as a pod of the first starts it
    """
    import signal
    import threading

    from autoscaler.wiring import configure_logging, run_webhook

    settings = load({("webhook", "port"): port})
    configure_logging()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    run_webhook(settings, stop, kubeconfig=kubeconfig, context=context)


@click.command()
@click.argument("workload", metavar="[NAMESPACE/NAME]", required=False)
@click.option("--node", metavar="NAME", help="Explain what is sold of a node, in the place of a workload.")
@click.option("--url", metavar="URL", help="Ask a running controller, such as http://127.0.0.1:8081.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Token that the running controller asks for.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Who signed the running controller's certificate.")
@click.option("--json", "as_json", is_flag=True, help="Print the whole record as JSON.")
@_cluster_options
@click.pass_obj
def explain(
    load: LoadSettings,
    *,
    workload: str | None,
    node: str | None,
    url: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    as_json: bool,
    kubeconfig: Path | None,
    context: str | None,
    history: Path | None,
    prometheus: str | None,
) -> None:
    """Say why a workload has the replicas it has, or what foresize would do about it; or what of a node is sold.

    With --url it is the last decision of a running controller. Without, a decision is made afresh and nothing is
    written; as nothing is known of the past then, a fresh decision never removes replicas. With --node it is what
    OversubscriptionPolicies come to there: the predicted peak, what may be sold, what is, and what the guard did.

    \b
    Examples:
      foresize explain shop/cart
      foresize explain shop/StatefulSet/db --context staging
      foresize explain shop/cart --url http://127.0.0.1:8081
      foresize explain shop/cart --url https://foresize.foresize:8081 --token-file token --ca-file ca.pem
      foresize explain --node n1 --url http://127.0.0.1:8081
    """
    if (workload is None) == (node is None):
        raise click.UsageError("name a workload as NAMESPACE/NAME, or a node with --node")
    if url is not None:
        record = _asked(url, f"nodes/{node}" if workload is None else f"decisions/{workload}", token_file, ca_file)
    elif workload is not None:
        record = _decided_afresh(load({("prometheus", "url"): prometheus}), workload, kubeconfig, context, history)
    else:
        assert node is not None
        if history is not None:
            raise click.UsageError("--history and --node: a usage table does not know nodes; give --prometheus")
        record = _looked_afresh(load({("prometheus", "url"): prometheus}), node, kubeconfig, context)
    if as_json:
        import orjson

        click.echo(orjson.dumps(record, option=orjson.OPT_INDENT_2).decode())
        return
    from autoscaler.controller.explanation import explanation
    from autoscaler.controller.node_explanation import node_explanation

    click.echo(explanation(record) if node is None else node_explanation(record))


def _asked(url: str, what: str, token_file: Path | None, ca_file: Path | None) -> dict[str, Any]:
    import ssl
    from urllib.parse import quote

    import httpx2

    from autoscaler.errors import ControllerUnreachable

    address = f"{url.rstrip('/')}/{quote(what)}"
    headers = {"Authorization": f"Bearer {_token_in(token_file)}"} if token_file else {}
    try:
        verify = ssl.create_default_context(cafile=str(ca_file)) if ca_file else True
        answer = httpx2.get(address, headers=headers, verify=verify, timeout=10.0)
        if answer.status_code == 401:  # its words name a setting of the controller's, not of this command's
            raise click.ClickException(f"{address} asks for a token: name its file with --token-file")
        content = answer.json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, OSError) as error:
        of_certificate = "CERTIFICATE_VERIFY_FAILED" in str(error)
        hint = "name who signed its certificate with --ca-file" if of_certificate else "is it that of a `foresize run`?"
        raise ControllerUnreachable(f"{address}: {error}; {hint}") from error
    if answer.status_code != 200 or not isinstance(content, dict) or not {"workload", "node"} & set(content):
        said = content.get("error") if isinstance(content, dict) else None
        raise click.ClickException(str(said or f"{address} answered {answer.status_code}"))
    return content


def _token_in(file: Path) -> str:
    """The token that a file holds; what it holds instead, such as a private key, is never told."""
    from predictor.settings import checked_token

    try:
        return checked_token(file.read_text(encoding="latin-1"))
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror or error}", param_hint="--token-file") from None
    except ValueError as flaw:
        raise click.BadParameter(f"{file} {flaw}; it must hold one token", param_hint="--token-file") from None


def _decided_afresh(
    settings: "AutoscalerSettings", workload: str, kubeconfig: Path | None, context: str | None, history: Path | None
) -> dict[str, Any]:
    import logging

    import structlog

    from autoscaler.controller.selection import find_record
    from autoscaler.wiring import build_controller, close_controller
    from predictor.wiring import build_source

    # What is worth saying is in the explanation; one line per workload of the cluster is not.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    source = build_source(settings, history)
    controller = build_controller(
        settings, is_dry_run=True, kubeconfig=kubeconfig, context=context, source=source, is_patient=True
    )
    try:
        report = controller.cycle()
    finally:
        close_controller(controller)
    if report.problem is not None:
        raise report.problem
    return find_record(report.records, workload).as_json()


def _looked_afresh(
    settings: "AutoscalerSettings", node: str, kubeconfig: Path | None, context: str | None
) -> dict[str, Any]:
    import logging

    import structlog

    from autoscaler.wiring import build_controller, build_node_control, close_controller
    from predictor.wiring import build_source

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    source = build_source(settings)
    controller = build_controller(settings, is_dry_run=True, kubeconfig=kubeconfig, context=context, source=source)
    nodes = build_node_control(settings, controller, source, is_patient=True)
    assert nodes is not None
    try:
        nodes.look()
    finally:
        close_controller(controller, nodes)
    problem = nodes.problem or nodes.peaks.problem
    if problem is not None or nodes.last is None:
        raise problem or AssertionError("a look ends with what it saw, or why it saw nothing")
    return nodes.last.record(node)
