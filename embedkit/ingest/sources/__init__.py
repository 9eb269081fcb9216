"""Catalogs: folders of pictures, tables, SQL queries."""
