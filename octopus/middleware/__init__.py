"""What wraps the handling of a record: the error boundary, time limits, dead letters."""
