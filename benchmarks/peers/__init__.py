"""Other frameworks, each in a virtual environment of its own with the versions in the text file beside it."""
