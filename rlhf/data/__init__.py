"""Readers and validation of the formats people have, chat rendering, splits and the helpdesk world."""
