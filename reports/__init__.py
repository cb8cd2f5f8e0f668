"""From result.json to tables, figures and pages; and the plans of many runs. Never imports PyTorch."""
