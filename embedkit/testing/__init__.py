"""Contract suites that ship, so that a third party can hold its own backend to them."""
