"""What is the paper's own: noise, agreement scores, weights, losses, and the offline tools."""
