"""Pictures of the notes' claims, each from one function; `draw` makes them all."""
