"""The embedded helpdesk world: facts, texts, simulated raters, and the utility that only evaluation sees."""
