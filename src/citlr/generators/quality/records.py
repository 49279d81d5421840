"""Results of measuring that a result of an audit holds: no torch, so that it is read in a moment."""

from dataclasses import dataclass

# Patients of every level, with fewer of whom nothing is said of what redrawing leaves of the levels' difference.
FEWEST_PATIENTS = 10


@dataclass(frozen=True)
class Left:
    """What redrawing leaves of the difference between recorded levels.

    - `before`: D of real images, in units of its error by chance; about 0 where they show nothing of the attribute.
    - `p`: P value of "images of the recorded levels do not differ", by redrawn signs of patients.
    - `left`: By level, D once what redrawing under it changes is put into all, over that of real images, and its
      standard `error`; empty where `p` shows no difference.
    """

    before: float
    p: float
    left: dict[str, float]
    error: dict[str, float]


def what_is_unknown(left: Left | None) -> tuple[str, ...]:
    """Say why it is not known what redrawing leaves of the difference between recorded levels."""
    what = "what redrawing leaves of the difference between recorded levels is unknown"
    if left is None:
        return (f"It takes levels that images have, of {FEWEST_PATIENTS} patients each: {what}.",)
    if not left.left:
        return (f"Images do not differ between levels, beside what is held (p = {left.p:.3f}): {what}.",)
    return ()
