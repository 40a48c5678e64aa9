"""Makes the imports of BentoML quiet before a test does them."""

import warnings

with warnings.catch_warnings():
    # BentoML uses a name of pathspec that is on its way out
    warnings.simplefilter("ignore", DeprecationWarning)
    import bentoml._internal.cloud  # noqa: F401
