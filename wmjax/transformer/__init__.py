"""The media model: channel tokens, relative attention, three streams, a balanced representation, heads and losses."""
