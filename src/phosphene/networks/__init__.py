"""Networks: opening them, what they are fed, their layers."""
