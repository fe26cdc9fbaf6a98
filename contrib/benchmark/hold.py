"""Today's ratios against those of the run that wrote docs/performance.md."""

import math
import statistics

from measure import number

# How sure it is that the true median lies in the interval that is compared.
SURE = 0.95
# Fewer rounds than these hardly say how far they wobble: so much more is allowed to them.
ROUNDS, UNKNOWN = 5, 1.1


def write(path, report):
    with open(path, "w") as out:
        out.write("# Section, what, better (more or less), and the ratio of each round: contrib/bench --hold compares with it\n")
        for (section, what), (better, numbers) in report.ratios.items():
            ratios = "\t".join(f"{ratio:.6g}" for ratio in sorted(numbers))
            out.write(f"{section}\t{what}\t{better}\t{ratios}\n")


def read(path):
    with open(path) as lines:
        rows = (line.rstrip("\n").split("\t") for line in lines if line[0] != "#")
        return {(section, what): (better, [float(ratio) for ratio in ratios]) for section, what, better, *ratios in rows}


def interval(numbers):
    """Where the true median is. The smallest and the largest of many rounds tell of the machine's worst moments, and lie further
    apart the more rounds there are; of the ranks in the middle it can be said how likely the median is between them."""
    numbers, count = sorted(numbers), len(numbers)
    # Each round is below the true median as likely as above it. `cut` rounds of each side can be left out.
    cut, outside = 0, 2 / 2**count
    while cut < (count - 1) // 2 and (more := outside + 2 * math.comb(count, cut + 1) / 2**count) <= 1 - SURE:
        cut, outside = cut + 1, more
    room = 1 if count >= ROUNDS else UNKNOWN
    return numbers[cut] / room, numbers[-1 - cut] * room


def is_worse(better, before, today):
    """Whether all of today's interval lies on the bad side of the stored one's: the spread of both counts."""
    (low, high), (today_low, today_high) = interval(before), interval(today)
    return today_high < low if better == "more" else today_low > high


def shown(numbers):
    low, high = interval(numbers)
    return f"{number(low)} – {number(statistics.median(numbers))} – {number(high)}"


def compare(path, report):
    """Prints each row. The rows that are worse, and how many of today's are not stored."""
    stored = read(path)
    worse, unknown = set(), 0
    for key, (better, today) in report.ratios.items():
        section, what = key
        if key not in stored:
            unknown += 1
            print(f"NOT STORED  {section}: {what}: {shown(today)}")
            continue
        before = stored[key][1]
        bad = is_worse(better, before, today)
        worse |= {key} if bad else set()
        print(f"{'WORSE' if bad else 'as before':<11} {section}: {what}: {shown(today)}, stored {shown(before)}, {better} is better")
    return worse, unknown
