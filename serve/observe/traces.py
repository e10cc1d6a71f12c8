"""OpenTelemetry spans of requests and their stages, where the setting `traces` names a collector; else nothing.

Spans continue what a caller began (`traceparent`). The exporter is an extra: `pip install 'ssm-platform[tracing]'`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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
def span(name: str, scope: Mapping[str, Any] | None = None, request_id: str | None = None) -> Iterator[None]:
    """A span around the block; the root of a request continues its caller's trace."""
    from opentelemetry import propagate, trace

    context = None
    if scope is not None:
        carrier = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        context = propagate.extract(carrier)
    attributes = {} if request_id is None else {"ssm.request_id": request_id}
    with trace.get_tracer(_SCOPE).start_as_current_span(name, context=context, attributes=attributes):
        yield
