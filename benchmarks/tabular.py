"""The tabular family, measured: figures of Sutton & Barto's second edition, and speed.

python benchmarks/tabular.py                       every figure: benchmarks/figures/book/NAME.png and NAME.json
python benchmarks/tabular.py --figures 6_5 7_2     some of them
python benchmarks/tabular.py --draw                the pictures again, from the numbers in the files
python benchmarks/tabular.py --speed               benchmarks/results/tabular.json
"""

import argparse

import measure  # noqa: F401 # first: it pins the process before jax starts its threads

# isort: split
from book import chapter2, chapter5, chapter6, chapter6_prediction, chapter7, chapter8, chapter12, figure

FIGURES: dict[str, figure.Figure] = {
    name: made
    for chapter in (chapter2, chapter5, chapter6_prediction, chapter6, chapter7, chapter8, chapter12)
    for name, made in chapter.FIGURES.items()
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", nargs="*", choices=FIGURES, default=list(FIGURES), metavar="NAME")
    parser.add_argument("--draw", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--out", default="benchmarks/results/tabular.json")
    options = parser.parse_args()
    if options.speed:
        import tabular_speed

        tabular_speed.measure_all(options.out)
        return
    for name in options.figures:
        if options.draw:
            figure.draw(name, FIGURES[name])
        else:
            print(f"{name}: {figure.make(name, FIGURES[name]):.0f} s")


if __name__ == "__main__":
    main()
