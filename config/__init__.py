"""The configuration files of the command line, read by hydra as ``pkg://crystalgfn.config``."""
