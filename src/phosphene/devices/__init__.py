"""Where ascents run: one device, or several."""
