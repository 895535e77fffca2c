"""The command line ``pyengine``."""
