# Copyright 2026 The sae_jax authors.
# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them; None and NaN are missing."""

import math

MISSING = "–"


def number(value: float | None, digits: int = 3) -> str:
  """`digits` significant digits, without an exponent where that is short."""
  if value is None or math.isnan(value):
    return MISSING
  if value and not 1e-4 <= abs(value) < 1e6:
    return f"{value:.{digits - 1}e}"
  if abs(value) >= 10**digits:
    return f"{value:,.0f}"
  return f"{value:#.{digits}g}".rstrip(".") if value else "0"


def percent(value: float | None) -> str:
  """A share, in percent, with as many digits as it takes to see it."""
  if value is None or math.isnan(value):
    return MISSING
  hundredfold = 100 * value
  if hundredfold in (0.0, 100.0):
    return f"{hundredfold:.0f} %"
  if abs(hundredfold) < 0.001:
    return f"{hundredfold:.0e} %"
  if abs(hundredfold) < 10:
    return f"{hundredfold:.2g} %"
  return f"{hundredfold:.1f} %"


def count(value: float | None) -> str:
  """12,345, or 1.23 M and 4.56 B above a million."""
  if value is None:
    return MISSING
  for unit, name in ((1e9, "B"), (1e6, "M")):
    if value >= unit:
      return f"{value / unit:.3g} {name}"
  return f"{value:,.0f}"


def rate(value: float | None) -> str:
  """A learning rate: 2e-4, 3.7e-5, 0.01."""
  if value is None or math.isnan(value):
    return MISSING
  if not value or 0.01 <= abs(value) < 1e4:
    return f"{value:.3g}"
  mantissa, exponent = f"{value:.2e}".split("e")
  mantissa = mantissa.rstrip("0").rstrip(".")
  return f"{mantissa}e{int(exponent)}"


def duration(seconds: float | None) -> str:
  """The two largest units: 42 s, 3 min 20 s, 5 h 12 min, 2 d 3 h."""
  if seconds is None:
    return MISSING
  if seconds < 10:
    return f"{seconds:.1f} s"
  left = round(seconds)
  parts = []
  for size, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
    if left >= size or (name == "s" and not parts):
      parts.append(f"{left // size} {name}")
      left %= size
    elif parts:
      break
  return " ".join(parts[:2])
