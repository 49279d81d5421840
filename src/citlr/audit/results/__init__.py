"""From predictions to the result of an audit."""
