"""Where catalogs and pictures lie: this machine, a web server, any fsspec file system, inside an archive."""
