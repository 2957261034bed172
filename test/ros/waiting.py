"""How long tests wait for an event: as long as a busy computer may need; a test that passes waits a moment."""

#: Seconds until a test gives up.
PATIENCE = 120.0
