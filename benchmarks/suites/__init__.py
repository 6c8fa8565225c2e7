"""What is measured: each suite is a list of cases."""
