"""What a person does around the loop: options, command line, run directory, log, picture, parameters."""
