"""The service: HTTP on Ray Serve. Build the application with `serve.app:build`; ask it with `serve.client.Client`.

    http -> replicas -> (intake, protocol, observe) -> settings, errors, threads

`http` answers requests, `replicas` do the work, `intake` takes bodies in under limits, `protocol` is the wire format
of tensors, `observe` is what operators see, `page/` the page. `deployments` hands all of it to Serve, `local` runs it
in one process. Knows how to serve a model, not how to make one.
"""
