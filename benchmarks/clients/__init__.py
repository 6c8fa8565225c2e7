"""What runs in a fresh process: Octopus and the bare client libraries."""
