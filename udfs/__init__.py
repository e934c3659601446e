if __name__ != "gristmill.udfs":
    raise ImportError(f"import gristmill.udfs, not {__name__}: a second import name would make a second copy of the registry")
