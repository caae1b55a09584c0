"""The daemon: builds everything, opens the nurseries in order, stops in reverse.

Always: what is opened later is closed earlier; the control socket opens last, so that who can
connect can be served; SIGTERM ends it within 5 s with exit code 0, a second one at once.
`python -m peerd.daemon '{"key": value, …}'` runs it; `peerd join` is the door for people.
"""
