"""OpenTelemetry spans of requests and their stages, where the setting `traces` names a collector; else nothing.

Spans continue what a caller began (`traceparent`), from the ingress through the replicas: a call between them carries
`carried()`. The exporter is an extra: `pip install 'ssm-platform[tracing]'`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Trace = Mapping[str, str]
"""Where a span is to be hung, as text that travels (W3C `traceparent`); empty: nowhere."""

_SCOPE = "ssm.serve"


def start_traces(collector: str | None) -> None:
    """Send spans of this process to an OTLP/HTTP collector. ValueError where the exporter is not installed."""
    if collector is None:
        return
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ValueError("traces need pip install 'ssm-platform[tracing]'") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "ssm"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{collector.rstrip('/')}/v1/traces")))
    trace.set_tracer_provider(provider)


@contextmanager
def span(name: str, trace_of: Trace | None = None, request_id: str | None = None) -> Iterator[None]:
    """A span around the block: below the one that `trace_of` names, else below the one that is open here."""
    from opentelemetry import propagate, trace

    context = None if trace_of is None else propagate.extract(trace_of)
    attributes = {} if request_id is None else {"ssm.request_id": request_id}
    with trace.get_tracer(_SCOPE).start_as_current_span(name, context=context, attributes=attributes):
        yield


def told_by(scope: Mapping[str, Any]) -> Trace:
    """What the caller of a request began."""
    return {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}


def carried() -> Trace:
    """The span that is open here, for a call to another process."""
    from opentelemetry import propagate

    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier
