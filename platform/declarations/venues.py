"""Where and when a method was published, read from the source of its data sheet."""

from __future__ import annotations

import re

VENUES = (
    *("AAAI", "ACSAC", "AISTATS", "ASIA CCS", "CCS", "CVPR", "ECCV", "ICASSP", "ICCV", "ICDCS"),
    *("ICLR", "ICML", "IEEE Access", "IEEE S&P", "IEEE TBD", "IEEE TSP", "IJCAI", "INFOCOM", "KDD"),
    *("MLSys", "MobiHoc", "NDSS", "NeurIPS", "PODC", "RAID", "S&P", "UAI", "USENIX Security"),
    "WACV",
)
SHORT_VENUES = {
    "Transactions on Big Data": "IEEE TBD",
    "Transactions on Dependable and Secure Computing": "IEEE TDSC",
    "Transactions on Information Forensics and Security": "IEEE TIFS",
    "Transactions on Signal Processing": "IEEE TSP",
}
VENUE = re.compile(rf"\b({'|'.join([*VENUES, *SHORT_VENUES])})[^0-9\"]{{0,12}}((?:19|20)\d\d)")
# a year and not the number of a preprint, which is a year and a month: arXiv 1911.07963
YEAR = re.compile(r"(?<!\.)\b(?:19|20)\d\d\b(?!\.\d)")
OWN = "of this project"  # how the source of a method without a paper begins


def venue_of(source: str) -> str:
    """Venue and year of the first paper that a source names, or the year alone; empty where there
    is none.

    >>> venue_of('A. Author, "A Title, 1999", ICML 2018, definition 2.')
    'ICML 2018'
    >>> venue_of('Z. Sun, "Can You?", 2019 (arXiv 1911.07963).')
    '2019'
    >>> venue_of("of this project, after an idea of NDSS 2021.")
    ''
    """
    if source.startswith(OWN):
        return ""
    venue, year = VENUE.search(source), YEAR.search(source)
    if venue:
        return f"{SHORT_VENUES.get(venue[1], venue[1])} {venue[2]}"
    return year[0] if year else ""
