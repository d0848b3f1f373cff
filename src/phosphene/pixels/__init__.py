"""Operations on images as tensors, (rows, channels, height, width)."""
