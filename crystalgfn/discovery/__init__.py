"""Discovery: rounds of sampling, placing, relaxing and learning from what was relaxed; a ranked list at the end."""
