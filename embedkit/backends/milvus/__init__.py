"""Milvus: embedded Lite in a file, or a server."""
