"""Dates, signs and units in a text whose case is folded: one spelling for each, and contradictions of two texts."""

from __future__ import annotations

import re
from datetime import date

_MONTH_LIST = "january february march april may june july august september october november december"
_MONTHS = _MONTH_LIST.split()
_ISO = re.compile(r"(?<![\d-])(\d{4})([-/])(\d{1,2})\2(\d{1,2})(?:t\d\d[\d:.z+-]*)?(?![\d-])")
_HAN_DATE = re.compile(r"(\d{3,4}) ?年 ?(\d{1,2}) ?月(?: ?(\d{1,2}) ?日)?")
_SHORT = "jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec"
_SHORT_MONTH = re.compile(rf"(?<=\d )({_SHORT})\b\.?|\b({_SHORT})\.? (?=\d)")
_MINUS = re.compile(r"(?<![\w.,:/)\u2013\u2212-])[\u2013\u2212-](?=\d)|(?<!\d )\b(?:minus|negative) (?=\d)")
_LANGUAGE = re.compile(r"\bc ?\+\+|\b([cfj])(?:#| sharp\b)|(?<!\w)\.net\b")
_UNITS = {
    "kilometer": "km|kilomet(?:er|re)s?", "meter": "m|met(?:er|re)s?", "centimeter": "cm|centimet(?:er|re)s?",
    "millimeter": "mm|millimet(?:er|re)s?", "mile": "mi|miles?", "foot": "ft|feet|foot", "yard": "yd|yards?",
    "inch": "inch(?:es)?", "kilogram": "kg|kilogram(?:me)?s?|kilos?", "gram": "g|gram(?:me)?s?",
    "milligram": "mg|milligram(?:me)?s?", "ton": "t|ton(?:ne)?s?", "pound": "lbs?|pounds?", "ounce": "oz|ounces?",
    "liter": "l|lit(?:er|re)s?", "milliliter": "ml|millilit(?:er|re)s?", "gallon": "gal|gallons?",
    "second": "s|sec|seconds?", "minute": "mins?|minutes?", "hour": "h|hrs?|hours?", "day": "days?", "week": "weeks?",
    "month": "months?", "year": "years?|yrs?", "hectare": "ha|hectares?", "acre": "acres?",
    "celsius": "\u00b0 ?c|degrees? c(?:elsius)?", "fahrenheit": "\u00b0 ?f|degrees? f(?:ahrenheit)?",
    "kelvin": "kelvins?", "percent": "percent|per cent", "dollar": "dollars?", "euro": "euros?", "yen": "yen|\u5186",
    "rupee": "rupees?", "kilowatt": "kw|kilowatts?", "megawatt": "mw|megawatts?", "watt": "w|watts?",
    "volt": "v|volts?", "hertz": "hz|hertz", "kilohertz": "khz|kilohertz", "megahertz": "mhz|megahertz",
    "gigahertz": "ghz|gigahertz", "kilobyte": "kb|kilobytes?", "megabyte": "mb|megabytes?",
    "gigabyte": "gb|gigabytes?", "terabyte": "tb|terabytes?",
}  # fmt: skip
_CURRENCIES = {"$": "dollar", "\u20ac": "euro", "\u00a3": "pound", "\u00a5": "yen", "\u20b9": "rupee"}
"""A pound of weight and one of money are the same here: no text has both for the same number."""
_NUMBER = r"(?<![\d.])(?P<number>-?\d++(?:\.\d++)?)"
_SCALE = r"(?P<scale>(?: (?:hundred|thousand|million|billion|trillion))*)"
_NAMED = "|".join(f"(?P<{unit}>{names})" for unit, names in _UNITS.items())
_MEASURED = re.compile(rf"{_NUMBER}{_SCALE}[ -]?(?:{_NAMED})(?![\w/])")
_PRICED = re.compile(rf"([{''.join(_CURRENCIES)}]) ?{_NUMBER}")


def spelled(text: str) -> str:
    """Dates as "may 3 2019", negative numbers as "-5", and names of programming languages as words."""
    text = _ISO.sub(lambda m: _date(m[1], m[3], m[4], m[0]), text)
    text = _HAN_DATE.sub(lambda m: _date(m[1], m[2], m[3], m[0]), text)
    text = _SHORT_MONTH.sub(lambda m: _month(m[1]) if m[1] else f"{_month(m[2])} ", text)
    return _LANGUAGE.sub(_language, _MINUS.sub(" -", text))


def with_unit_names(text: str) -> str:
    """Units after numbers by their whole names: "5km" as "5 kilometer"."""
    return _MEASURED.sub(lambda m: f"{m['number']}{m['scale']} {m.lastgroup}", text)


def other_unit(gold: str, answer: str) -> str:
    """A quantity of the gold that the answer has in another unit, and not in the gold's; else empty."""
    wanted, said = _quantities(gold), _quantities(answer)
    for number, unit in sorted(wanted):
        units = {other for value, other in said if value == number}
        if units and not units & {other for value, other in wanted if value == number}:
            return f"{number} {unit}"
    return ""


def _quantities(text: str) -> set[tuple[str, str]]:
    found = {(match["number"], str(match.lastgroup)) for match in _MEASURED.finditer(text)}
    return found | {(match["number"], _CURRENCIES[match[1]]) for match in _PRICED.finditer(text)}


def _date(year: str, month: str, day: str | None, text: str) -> str:
    """In words; the text as it is, if there is no such date."""
    try:
        date(int(year), int(month), int(day or 1))
    except ValueError:
        return text
    return f" {_MONTHS[int(month) - 1]} {int(day) if day else ''} {int(year)} "


def _month(short: str) -> str:
    return next(month for month in _MONTHS if month.startswith(short[:3]))


def _language(match: re.Match[str]) -> str:
    if match[1]:
        return f"{match[1]}sharp"
    return "dotnet" if match[0].endswith("net") else "cplusplus"
