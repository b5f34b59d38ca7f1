"""HTTP below the routes: connection limits, request bodies, event streams."""
