"""A collection that lives on: new versions beside the old, moves to another backend, backups, imports."""
