"""The backend contract and the backends that come with embedkit."""
