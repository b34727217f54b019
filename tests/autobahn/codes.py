"""The close codes that RFC 6455 asks for. The suite notes what it was sent and does not score it."""

import re

# Codes of section 7.4.1.
NORMAL, PROTOCOL, NOT_UTF8 = 1000, 1002, 1007

# The first line that a case's whole number fits decides.
RULES = [
    (r"2\.5", PROTOCOL),  # a ping of more than 125 bytes
    (r"3\..*", PROTOCOL),  # reserved bits
    (r"4\..*", PROTOCOL),  # reserved opcodes
    (r"5\.(1|2|9|1[0-8])", PROTOCOL),  # control frames in fragments, continuations of nothing
    (r"6\.(3|4|8|10|1[2-9]|2[01])\..*", NOT_UTF8),  # 6.12 to 6.21: ill-formed in every known way
    (r"6\.6\.(1|3|4|6|8|10)", NOT_UTF8),  # characters that are cut off
    (r"6\.11\.5", NOT_UTF8),  # above U+10FFFF
    (r"7\.3\.1", None),  # section 5.5.1: a close frame without a code gets one without
    (r"7\.3\.2", PROTOCOL),  # a close frame of one byte
    (r"7\.3\.6", PROTOCOL),  # a reason of more than 123 bytes
    (r"7\.5\.1", NOT_UTF8),  # a reason that is not UTF-8
    (r"7\.9\..*", PROTOCOL),  # codes that nobody may send
    (r"7\.13\..*", PROTOCOL),  # 5000 and 65536, of which section 7.4.2 knows nothing
    (r".*", NORMAL),  # the suite closes, and gets its own code back
]
# Section 5.5.1 again: these are the codes the cases 7.7.1 to 7.7.13 send.
ECHOED = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]


def right_code(number):
    """The code a case must end with."""
    if found := re.fullmatch(r"7\.7\.(\d+)", number):
        return ECHOED[int(found[1]) - 1]
    return next(code for pattern, code in RULES if re.fullmatch(pattern, number))


def wrong_code(number, code):
    """What is wrong with the code that a case ended with; nothing, if nothing is."""
    right = right_code(number)
    return None if code == right else f"ended with close code {code}, not {right}"
