"""Numbers as a reader sees them: percent, points, p-values; a number that is not there is never shown as NaN."""

import math

NARROW = "\u202f"  # narrow no-break space, between a number and its unit
MINUS = "\u2212"
_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b⁰¹²³⁴⁵⁶⁷⁸⁹")


def is_number(value: object) -> bool:
    """Whether `value` is a finite number that can be shown.

    >>> is_number(0.5), is_number(float("nan")), is_number(None)
    (True, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _digits(magnitude: float) -> int:
    """Decimals that give about two significant digits in a table of percentages."""
    if magnitude >= 10 or magnitude == 0:
        return 1
    return 2 if magnitude < 1 else 1


def decimal(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """Write a plain decimal with a true minus sign; what rounds to zero carries no sign.

    >>> decimal(-0.1234), decimal(0.0001, 2), decimal(1234.5, 1)
    ('−0.123', '0.00', '1\u202f234.5')
    """
    text = f"{abs(value):,.{digits}f}".replace(",", NARROW)
    if not any(character in "123456789" for character in text):
        return text
    sign = MINUS if value < 0 else "+" if signed else ""
    return f"{sign}{text}"


def percent(share: float, *, signed: bool = False, digits: int | None = None) -> str:
    """Write a share (0.061) as a percentage (6.1 %)."""
    places = _digits(abs(share) * 100) if digits is None else digits
    return f"{decimal(share * 100, places, signed=signed)}{NARROW}%"


def margin(share: float) -> str:
    """Write a share that somebody set, with the digits that he set (2 %, not 2.0 %).

    >>> margin(0.02).replace(NARROW, " "), margin(0.005).replace(NARROW, " ")
    ('2 %', '0.5 %')
    """
    return f"{100 * share:.6g}{NARROW}%"


def points(share: float) -> str:
    """Write a difference of shares (0.042) in percentage points, without its sign (4.2 percentage points).

    >>> points(-0.042).replace(NARROW, " ")
    '4.2 percentage points'
    """
    return f"{decimal(abs(share) * 100, _digits(abs(share) * 100))}{NARROW}percentage points"


def count(value: float) -> str:
    """Write a count with thin spaces between the thousands.

    >>> count(12000).replace(NARROW, " ")
    '12 000'
    """
    return f"{round(value):,}".replace(",", NARROW)


def pvalue(value: float, log10: float = math.nan) -> str:
    """Write a p-value exactly as far as it carries meaning; `log10` serves where the value itself underflows.

    What is below a round number, which may be somebody's alpha, is written so that it is seen to be.
    """
    if value >= 1e-4:
        places = 2 if value >= 0.1 else 3 if value >= 0.001 else 5
        text = f"{value:.{places}f}"
        while value < float(text) < 0.5 and len(text.replace(".", "").strip("0")) == 1:
            places += 1
            text = f"{value:.{places}f}"
        return text if value >= 0.001 else text.rstrip("0")
    exponent = log10 if is_number(log10) and log10 < -4 else math.log10(value) if value > 0 else math.nan
    if not math.isfinite(exponent):
        return f"below{NARROW}0.0001"
    mantissa = min(10 ** (exponent - math.floor(exponent)), 9.9)
    power = str(math.floor(exponent)).translate(_SUPERSCRIPT)
    return f"10{power}" if round(mantissa, 1) == 1.0 else f"{mantissa:.1f}{NARROW}×{NARROW}10{power}"


def seconds(value: float) -> str:
    """Write a duration.

    >>> [seconds(value).replace(NARROW, " ") for value in (0.42, 75, 7260)]
    ['0.4 s', '1 min 15 s', '2 h 01 min']
    """
    if value < 60:
        return f"{value:.1f}{NARROW}s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes}{NARROW}min {rest:02d}{NARROW}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{NARROW}h {minutes:02d}{NARROW}min"


def megabytes(value: float) -> str:
    """Write bytes as mebibytes or gibibytes.

    >>> megabytes(3 * 2**30).replace(NARROW, " "), megabytes(2**20).replace(NARROW, " ")
    ('3.0 GiB', '1 MiB')
    """
    return f"{value / 2**30:.1f}{NARROW}GiB" if value >= 2**30 else f"{value / 2**20:.0f}{NARROW}MiB"


def nice_ticks(low: float, high: float, *, about: int = 5) -> tuple[float, ...]:
    """Round numbers inside [low, high], `about` of them, in steps of 1, 2 or 5 times a power of ten.

    >>> nice_ticks(-0.013, 0.094)
    (0.0, 0.02, 0.04, 0.06, 0.08)
    """
    span = high - low
    if not span > 0:
        return (low,)
    raw = span / about
    power = 10 ** math.floor(math.log10(raw))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda candidate: abs(candidate - raw))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return tuple(round(index * step, 12) + 0.0 for index in range(first, last + 1))
