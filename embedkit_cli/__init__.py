"""The command line of embedkit: parses, calls the SDK, renders."""
