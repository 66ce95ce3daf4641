"""The import of a cell model from a file: read, understand, guard, write as a module."""
