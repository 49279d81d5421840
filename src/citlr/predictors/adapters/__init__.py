"""One file for each form in which a model comes, named after its kind in `citlr.config.model.MODEL_FILES`.

- `takes(found) -> bool`: Whether an object of Python is of this kind.
- `wrap(found, declared, settings) -> Predictor`: Make a predictor of it.
- `read(path, declared) -> Predictor`: Make one of a file; absent where no file holds such a model.
"""
