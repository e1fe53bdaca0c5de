"""The texts of the mails to the staff, in English and in Traditional Chinese."""

# ruff: noqa: RUF001  the punctuation of Chinese

from __future__ import annotations

from typing import Final, Literal

Language = Literal["en", "zh-Hant-TW"]
Kind = Literal["invitation", "reset"]

_TEXTS: Final[dict[tuple[Kind, Language], tuple[str, str]]] = {
    ("invitation", "en"): (
        "{inviter} invites you to Deskline",
        "Hello {name},\n\n"
        "{inviter} has made an account for you at {site}. Choose a password here:\n\n"
        "{link}\n\n"
        "The link works once, for {hours} hours. Ask {inviter} for a new one after that.\n"
        "If you did not expect this mail, ignore it.\n",
    ),
    ("invitation", "zh-Hant-TW"): (
        "{inviter} 邀請您加入 Deskline",
        "{name} 您好：\n\n"
        "{inviter} 已為您在 {site} 建立帳號。請由此設定密碼：\n\n"
        "{link}\n\n"
        "此連結只能使用一次，{hours} 小時內有效；逾期請向 {inviter} 索取新的連結。\n"
        "如果您不知道這封信的由來，請不必理會。\n",
    ),
    ("reset", "en"): (
        "Choose a new password for Deskline",
        "Hello {name},\n\n"
        "somebody, probably you, asked for a new password at {site}. Choose one here:\n\n"
        "{link}\n\n"
        "The link works once, for {hours} hours. If it was not you, ignore this mail: your "
        "password stays as it is.\n",
    ),
    ("reset", "zh-Hant-TW"): (
        "重設您的 Deskline 密碼",
        "{name} 您好：\n\n"
        "有人（應該是您）在 {site} 要求重設密碼。請由此設定新密碼：\n\n"
        "{link}\n\n"
        "此連結只能使用一次，{hours} 小時內有效。如果不是您本人的要求，請不必理會，"
        "您的密碼不會改變。\n",
    ),
}


def write(
    kind: Kind, language: Language, *, name: str, inviter: str, site: str, link: str, hours: int
) -> tuple[str, str]:
    """The subject and the text of a mail."""
    subject, text = _TEXTS[(kind, language)]
    # names hold no line breaks (they are one line), so they cannot add headers or links of lines
    values = {"name": name, "inviter": inviter, "site": site, "link": link, "hours": hours}
    return subject.format_map(values), text.format_map(values)
