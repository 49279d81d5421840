"""What an audit will do and take on this machine, before it starts: checks, and a pilot of seconds."""
