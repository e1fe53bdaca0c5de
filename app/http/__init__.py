"""The HTTP API: Sanic blueprints, one per audience, over app.chat."""
