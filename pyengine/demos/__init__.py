"""What ``pyengine demo`` shows."""
