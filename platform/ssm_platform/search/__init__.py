"""Search over recipe fields with Ray Tune: a checked space, a resumable sweep, and what it found."""
