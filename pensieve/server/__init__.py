"""The HTTP server. The only package that imports starlette and uvicorn."""
