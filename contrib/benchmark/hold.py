"""Today's ratios against those of the run that wrote docs/performance.md."""

import statistics

from measure import number


def write(path, report):
    with open(path, "w") as out:
        out.write("# Section, what, better (more or less), and the smallest, median and largest ratio: contrib/bench --hold compares with it\n")
        for (section, what), (better, numbers) in report.ratios.items():
            low, middle, high = min(numbers), statistics.median(numbers), max(numbers)
            out.write(f"{section}\t{what}\t{better}\t{low:.6g}\t{middle:.6g}\t{high:.6g}\n")


def read(path):
    with open(path) as lines:
        rows = (line.rstrip("\n").split("\t") for line in lines if line[0] != "#")
        return {(section, what): (better, *map(float, numbers)) for section, what, better, *numbers in rows}


def is_worse(better, low, high, today):
    """Whether today's median lies outside of what the stored run wobbled, on the bad side."""
    middle = statistics.median(today)
    return middle < low if better == "more" else middle > high


def compare(path, report):
    """Prints each row; how many are worse, and how many of today's are not stored."""
    stored = read(path)
    worse = unknown = 0
    for key, (better, today) in report.ratios.items():
        section, what = key
        if key not in stored:
            unknown += 1
            print(f"NOT STORED  {section}: {what}: {number(statistics.median(today))}")
            continue
        _, low, middle, high = stored[key]
        bad = is_worse(better, low, high, today)
        worse += bad
        shown = f"{number(statistics.median(today))}, stored {number(low)} – {number(middle)} – {number(high)}, {better} is better"
        print(f"{'WORSE' if bad else 'as before':<11} {section}: {what}: {shown}")
    return worse, unknown
