"""Prometheus text of all that is measured, and the same for OpenTelemetry where that is
installed."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from millrace.watch.http import Answer, Refused, Request
from millrace.watch.metrics import Collector, Family

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader
    from prometheus_client.core import Metric

#: A scrape that takes longer gets an error.
MOST_SECONDS = 8.0


class Exporter:
    """Collects in one thread of its own, whoever asks, and how many at a time."""

    def __init__(self, *, drops: bool = True, host: bool = True) -> None:
        self._drops = drops
        self._host = host
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "millrace-metrics")
        self._stack = contextlib.ExitStack()
        self._collector = Collector()
        #: Why the kernel's drops are not counted; empty if they are, or were not asked for.
        self.blind = ""

    def __enter__(self) -> Self:
        self._worker.submit(self._open).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._worker.submit(self._stack.close).result()
        self._worker.shutdown()

    def _open(self) -> None:
        if self._drops:
            from millrace.watch.drops import Selection, Watch

            watch = self._stack.enter_context(Watch(Selection(benign=True)))
            self._collector.watch = watch
            self.blind = watch.blind
        if self._host:
            from millrace.host import Observer

            self._collector.observer = self._stack.enter_context(Observer())

    def families(self) -> list[Family]:
        """All families, read anew unless they were read just now.

        Raises TimeoutError if that takes too long.
        """
        return self._worker.submit(self._collector.collect).result(MOST_SECONDS)

    def collect(self) -> Iterator[Metric]:
        """What prometheus-client asks a collector for."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for family in self.families():
            make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = make(family.name, family.help, labels=family.labels)
            for labels, value in family.samples:
                metric.add_metric(labels, value)
            yield metric

    def describe(self) -> Iterator[Metric]:
        """Nothing beforehand: what there is depends on who runs."""
        return iter(())

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import generate_latest

        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def answer(self, request: Request) -> Answer:
        """Serve a scrape."""
        from prometheus_client.exposition import CONTENT_TYPE_LATEST

        if request.path == "/":
            return Answer(b"Millrace's metrics are at /metrics\n")
        if request.path != "/metrics":
            raise Refused(404, "there is only /metrics")
        try:
            return Answer(self.text(), CONTENT_TYPE_LATEST)
        except TimeoutError:
            raise Refused(503, "reading the machine took too long") from None


class Telemetry:
    """Gives the same to OpenTelemetry: what there was is looked up anew whenever it collects.

    Families that appear later are added at the next collection.
    """

    def __init__(self, exporter: Exporter, reader: MetricReader) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.resources import Resource

        self._exporter = exporter
        resource = Resource.create({"service.name": "millrace"})
        self._provider: MeterProvider = MeterProvider([reader], resource=resource)
        self._meter = self._provider.get_meter("millrace")
        self._known: set[str] = set()
        self._add_new(exporter.families())

    def _add_new(self, families: list[Family]) -> None:
        for family in families:
            if family.name in self._known:
                continue
            self._known.add(family.name)
            make = (
                self._meter.create_observable_counter
                if family.kind == "counter"
                else self._meter.create_observable_gauge
            )
            name = family.name.replace("_", ".", 1)
            make(name, [self._callback(family.name)], description=family.help)

    def _callback(self, name: str) -> Callable[[CallbackOptions], Iterator[Observation]]:
        from opentelemetry.metrics import Observation

        def observe(_: CallbackOptions) -> Iterator[Observation]:
            families = self._exporter.families()
            self._add_new(families)
            for family in families:
                if family.name == name:
                    for labels, value in family.samples:
                        yield Observation(value, dict(zip(family.labels, labels, strict=True)))

        return observe

    def shutdown(self) -> None:
        """Send what is left, and end."""
        self._provider.shutdown()


def otlp(exporter: Exporter, endpoint: str, seconds: float) -> Telemetry:
    """Send to an OpenTelemetry collector every so often.

    Raises RuntimeError, which says what to install, where OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    except ImportError as error:
        raise RuntimeError(
            f"OpenTelemetry is not installed ({error.name}): pip install 'millrace[otel]'"
        ) from None
    sender = OTLPMetricExporter(endpoint=endpoint)
    reader = PeriodicExportingMetricReader(sender, export_interval_millis=seconds * 1000)
    return Telemetry(exporter, reader)
