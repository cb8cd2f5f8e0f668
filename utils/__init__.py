"""The paper's own rules: noise, agreement scores, weights and losses; and the offline tools that use them."""
