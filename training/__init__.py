if __name__ != "gristmill.training":
    raise ImportError(f"import gristmill.training, not {__name__}: a second import name would make a second copy of the registry")
