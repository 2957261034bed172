"""The scene-specific ray head."""
