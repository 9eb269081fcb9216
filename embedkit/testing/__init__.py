"""What a third party needs to hold its own backend, encoder or source to embedkit's contracts."""
