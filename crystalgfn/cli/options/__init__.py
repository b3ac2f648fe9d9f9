"""Options of the commands: what there are (`declared`), what their texts mean (`kinds`), and how they come together."""
