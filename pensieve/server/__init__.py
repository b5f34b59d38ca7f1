"""HTTP. The only package that imports starlette and uvicorn."""
