"""How much of the output can be read at each layer, of three networks, on the 200 photographs of ../shared/images.

    python bench/depth.py
    python bench/depth.py --networks efficientnet_lite0 --cuts blocks.5.3 blocks.6.0 --out docs/depth

EfficientNet-lite0 and SqueezeNet are classifiers of 1000 classes; DINOv2-small, trained further for saliency, has no
logits.  Since each photograph is of another class, the labels that are probed are four groups of classes: dogs, other
animals, things that people make, and food and nature.  A table a network, its sentence, and the seconds that all of it
took.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import phosphene
from phosphene.comparison.depth_report import DepthReport
from phosphene.comparison.depth_rows import DepthRow

SHARED = Path(__file__).resolve().parents[2] / "shared"
NETWORKS = {
    "efficientnet_lite0": ("efficientnet_lite0", None),
    "squeezenet": (
        str(SHARED / "weights" / "squeezenet_v1.1.prototxt"),
        str(SHARED / "weights" / "squeezenet_v1.1.caffemodel"),
    ),
    "dinov2_small_saliency": (str(SHARED / "weights" / "dinov2_small_saliency"), None),
}


def group(path: Path) -> str:
    """Of a photograph called `130_n02007558_flamingo.jpg`, by the order of ImageNet's classes."""
    index = int(path.name.partition("_")[0])
    if 151 <= index <= 268:
        return "dog"
    return "other animal" if index < 398 else "thing" if index < 923 else "food or nature"


def markdown(report: DepthReport) -> str:
    """A table, a row a layer."""
    head = ["layer", "channels", *["CKA with the logits", "R²", "first class"] * bool(report.classes), "group",
            "ratio", "99 %", "CKA before", "parameters", "time"]  # fmt: skip
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    lines += [f"| `{row.layer}` | {' | '.join(cells(row, bool(report.classes)))} |" for row in report.rows]
    return "\n".join(lines)


def cells(row: DepthRow, classifies: bool) -> list[str]:
    def number(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    logits = [number(row.cka_logits), number(row.r2), "" if row.top1 is None else f"{row.top1:.0%}"]
    return [
        str(row.channels),
        *logits * classifies,
        "" if row.label_top1 is None else f"{row.label_top1:.0%}",
        number(row.participation, 0),
        str(row.directions),
        number(row.cka_before),
        f"{row.parameter_share:.0%}",
        "" if row.time_share is None else f"{row.time_share:.0%}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, default=SHARED / "images")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--cuts", nargs="*", default=[], metavar="LAYER", help="of classifiers, with one network")
    parser.add_argument("--out", type=Path, help="a folder for the figures")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    files = sorted(args.photographs.glob("*.jpg"))
    labels = [group(path) for path in files]
    for name in args.networks:
        spelled, weights = NETWORKS[name]
        network = phosphene.open(spelled, weights=weights)
        begin, spent = time.perf_counter(), time.process_time()
        report = phosphene.depth(network, files, labels=labels, cut=args.cuts[0] if args.cuts else None)
        took, spent = time.perf_counter() - begin, time.process_time() - spent
        print(f"\n## {name}: {report.photographs} photographs, {took:.0f} s, {spent:.0f} s of the processor\n")
        print(markdown(report), f"\n{report.summary}", sep="\n", flush=True)
        if args.out is not None:
            report.save(args.out / name)
        for cut in [report.cut] if report.cut else []:
            print(f"\n{cut.summary}", flush=True)
        for layer in args.cuts[1:]:
            again = phosphene.depth(network, files, [layer, report.rows[-1].layer], cut=layer)
            print(f"\n{again.cut.summary}", flush=True)  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
