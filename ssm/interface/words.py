"""What answers say of themselves, in the words of every front door: files, reports, Python, HTTP and the page.

Not legal advice: two sentences of the EU's AI Act (Regulation 2024/1689, Articles 5(1)(f), 50(3) and recital 18) that
whoever deploys this should know of.
"""

from __future__ import annotations

MOVEMENT = (
    "These numbers name facial movement as a camera sees it: movement, not feeling. "
    "They do not say what somebody feels, thinks or intends."
)

LAW = (
    "In the EU, who deploys emotion recognition must tell the people shown (AI Act, Article 50(3), since 2 August "
    "2026); inferring emotions at work and in education is banned (Article 5(1)(f), since 2 February 2025)."
)

AUS_ONLY = "Expressions are off: action units alone are named, and no emotion is inferred."


def notice(expressions: bool) -> str:
    """What goes beside every answer; `expressions`: whether it names expressions."""
    return f"{MOVEMENT} {LAW if expressions else AUS_ONLY}"
