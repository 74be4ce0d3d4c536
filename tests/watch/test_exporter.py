"""Metrics: the text that Prometheus reads, its names, the dashboard, and OpenTelemetry."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from millrace.watch import metrics
from millrace.watch.exporter import Exporter, Telemetry, otlp
from millrace.watch.metrics import Collector, Families

MILLRACE = [sys.executable, "-m", "millrace"]


def parse(text: str) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def settled(program: Any) -> None:
    """What is on a page is up to 25 ms behind."""
    while not all(page.number_of("port", "rx_packets") for page in program.found().pages):
        pass


def test_channels_are_in_the_text(watched: Callable[..., Any]) -> None:
    program = watched()
    settled(program)
    with Exporter(drops=False, host=False) as exporter:
        found = parse(exporter.text().decode())
    samples = found["millrace_port_rx_packets"].samples
    assert len(samples) == 2
    for sample in samples:
        assert sample.name == "millrace_port_rx_packets_total"
        assert sample.labels["pid"] == str(program.process.pid)
        assert sample.labels["port"] == "memory:wire"
        assert sample.value > 0
    assert found["millrace_frames"].samples[0].value == 2048
    assert found["millrace_frames"].type == "gauge"
    assert "millrace_channel_idle_seconds" in found
    drops = found["millrace_drops"].samples
    assert {"reason", "kind"} <= drops[0].labels.keys()
    assert len({sample.labels["reason"] for sample in drops}) > 50


@pytest.mark.networks
@pytest.mark.usefixtures("tracing")
def test_names_follow_the_rules(watched: Callable[..., Any]) -> None:
    watched()
    with Exporter() as exporter:
        assert exporter.blind == ""
        text = exporter.text().decode()
    found = parse(text)
    for name, family in found.items():
        assert re.fullmatch(r"millrace_[a-z][a-z0-9_]*", name), name
        assert family.documentation, name
        assert not name.endswith(("_total", "_nanoseconds", "_ms", "_us")), name
        for sample in family.samples:
            assert sample.name == (f"{name}_total" if family.type == "counter" else name)
            assert sample.value >= 0
        # One sample for each set of labels.
        labels = [tuple(sorted(sample.labels.items())) for sample in family.samples]
        assert len(set(labels)) == len(labels), name
    for wanted in ("softnet_processed", "interface_rx_packets", "cpu_seconds", "sockets"):
        assert f"millrace_{wanted}" in found
    assert "millrace_netstat_tcp_retrans_segs" in found
    assert "millrace_netstat_tcp_ext_listen_overflows" in found


@pytest.mark.networks
@pytest.mark.usefixtures("tracing")
def test_the_dashboard_asks_only_for_what_there_is(watched: Callable[..., Any]) -> None:
    watched()
    with Exporter() as exporter:
        text = exporter.text().decode()
    there = {sample.name for family in parse(text).values() for sample in family.samples}
    # What there is only after something was dropped.
    there |= {"millrace_kernel_drops_total", "millrace_listen_queue"}
    dashboard = json.loads((files("millrace.watch") / "grafana.json").read_text())
    expressions = [
        target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])
    ]
    assert len(expressions) > 20
    for expression in expressions:
        names = set(re.findall(r"millrace_[a-z0-9_]+", expression))
        assert names, expression
        assert names <= there, names - there
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert len({(place["x"], place["y"]) for place in places}) == len(places)


@pytest.mark.networks
@pytest.mark.usefixtures("tracing")
def test_the_kernels_drops_are_counted() -> None:
    with Exporter(host=False) as exporter:
        exporter.text()
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.sendto(b"x", ("127.0.0.1", 9))
        one.close()
        exporter._collector.least_seconds = 0.0
        found = parse(exporter.text().decode())
    drops = found["millrace_kernel_drops"].samples
    ours = [one for one in drops if one.labels["reason"] == "NO_SOCKET"]
    assert any(one.labels["interface"] == "lo" and one.value >= 1 for one in ours)


def test_asking_often_costs_nothing() -> None:
    now = 0.0
    collector = Collector(least_seconds=0.5, _clock=lambda: now)
    first = collector.collect()
    now = 0.4
    assert collector.collect() is first
    now = 0.6
    assert collector.collect() is not first


def test_names_of_the_kernel_become_snake_case() -> None:
    for name, wanted in (
        ("TcpExtTCPRcvQDrop", "tcp_ext_tcp_rcv_q_drop"),
        ("TcpRetransSegs", "tcp_retrans_segs"),
        ("UdpRcvbufErrors", "udp_rcvbuf_errors"),
    ):
        assert metrics._snake(name) == wanted


def test_a_family_keeps_the_order_of_its_labels() -> None:
    families = Families()
    families.counter("x", "text", {"a": "1", "b": "2"}, 3)
    families.counter("x", "text", {"b": "4", "a": "5"}, 6)
    (family,) = families
    assert family.samples == [(("1", "2"), 3), (("5", "4"), 6)]


def test_the_command_serves_on_loopback_until_it_is_told(watched: Callable[..., Any]) -> None:
    watched()
    process = subprocess.Popen(
        [*MILLRACE, "exporter", "--port", "0", "--no-drops"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    match = re.search(r"serving (http://127\.0\.0\.1:\d+/metrics)", line)
    assert match is not None, line
    with urllib.request.urlopen(match[1], timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert b"millrace_port_rx_packets_total{" in answer.read()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(match[1] + "x", timeout=30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    process.stderr.close()


def test_once_and_dashboard_write_and_end() -> None:
    for word, begin in (("--once", "# HELP millrace_"), ("--dashboard", "{")):
        done = subprocess.run(
            [*MILLRACE, "exporter", word, "--no-drops", "--no-host"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0
        assert done.stdout.startswith(begin)


def test_open_telemetry_gets_the_same(watched: Callable[..., Any]) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.metrics.export")
    settled(watched())
    reader = sdk.InMemoryMetricReader()
    with Exporter(drops=False, host=False) as exporter:
        telemetry = Telemetry(exporter, reader)
        data = reader.get_metrics_data()
        telemetry.shutdown()
    (resource,) = data.resource_metrics
    found = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
    points = found["millrace.port_rx_packets"].data.data_points
    assert len(points) == 2
    assert points[0].attributes["port"] == "memory:wire"
    assert points[0].value > 0
    assert found["millrace.frames"].data.data_points[0].value == 2048


def test_without_open_telemetry_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    with (
        Exporter(drops=False, host=False) as exporter,
        pytest.raises(RuntimeError, match=r"pip install 'millrace\[otel\]'"),
    ):
        otlp(exporter, "http://127.0.0.1:1", 60)
