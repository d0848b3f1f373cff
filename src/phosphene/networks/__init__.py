"""Networks: opening them, their preprocessing, their layers."""
