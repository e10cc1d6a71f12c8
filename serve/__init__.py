"""The HTTP application on Ray Serve; build it with `serve.app.build`."""
