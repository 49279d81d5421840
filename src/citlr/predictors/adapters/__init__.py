"""One file for each form in which a model comes, named after its kind in `citlr.config.model.MODEL_FILES`.

- `takes(found) -> bool`, `wrap(found, declared, settings) -> Predictor`: Whether an object of Python is of this kind,
  and make a predictor of it; absent where none is.
- `read(path, declared) -> Predictor`: Make one of a file; absent where no file holds such a model.
"""
