"""The command line of embedkit: each command parses, calls the SDK once, and renders."""
