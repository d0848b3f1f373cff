"""What networks and layers share, what photographs and pictures do to them, and what tells two of them apart."""
