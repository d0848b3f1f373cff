"""What can be typed: the verbs, of which only the one that is typed is imported."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import NoReturn

from phosphene.cli import statuses
from phosphene.errors import did_you_mean, nearest, printable
from phosphene.versions import package_version

VERBS = {
    "classes": "images of classes",
    "filters": "images of a layer's channels",
    "dream": "DeepDream: a photograph, with all that a layer sees in it brought out",
    "invert": "a photograph as a layer keeps it: what can be told from its activations",
    "caricature": "what a layer makes of a photograph, exaggerated",
    "explain": "where in a photograph a unit or class is, and which hidden units carried it",
    "attention": "what a transformer's heads look at in a photograph, and the attention rollout",
    "reproduce": "the figures of Fabien Tencé's post (2016), on its networks or any other",
    "difference": "what one network calls a class and another does not, as pictures",
    "direction": "what tells two kinds of photographs apart, as a direction in a layer",
    "compare": "what two networks share; or with -n, what a picture does to a network beside what photographs do",
    "dictionary": "what a sparse autoencoder's file is, and what it does not say",
    "layers": "a network's layers in the order of calls",
    "depth": "how much of the output can be read at each layer, and what is lost where a network ends at one",
    "doctor": "whether the preprocessing of a network is right, and what of it can be shown",
    "statistics": "what photographs are like, or what a network makes of them",
    "search": "the recipe for a network, or for a layer, found by measuring",
    "atlas": "a whole network: every unit of some layers, made, kept and looked up",
    "label": "names for the hidden units of an atlas, among words, by photographs",
    "studio": "a local page: pick a unit, watch its image form, change strengths on the way",
    "profile": "where the time of a step goes",
    "networks": "the networks that can be opened",
    "recipes": "the recipes that ship, or one of them as TOML",
    "show": "how an image was made, from its own file",
    "judge": "what other networks see in images, and what is measured of them",
    "again": "make an image again, from its file alone",
    "completion": "the script that has a shell complete verbs, options, layers and classes",
}
ATLAS_VERBS = {
    "plan": "say what is to be made, and what it takes; nothing is made yet",
    "run": "make what is missing, or made by another recipe",
    "map": "an activation atlas: a layer's activations of photographs, laid out by likeness and pictured",
    "status": "how far it is, and when it ends; from any terminal",
    "verify": "whether every image is as it was written",
    "index": "make the index again, from the images alone",
    "site": "a page to browse it: no server, and nothing from elsewhere",
}

FIRST_STEPS = """\
phosphene shows what an image network has learned: the images that excite its units most.  Three things to try:

  phosphene classes flamingo teddy       what the bundled network takes for two classes (a minute or two)
  phosphene filters blocks.3.0.bn2.act   what the channels of one of its layers respond to
  phosphene studio                       a page: pick a unit, and watch its image form

With -n NAME any other network is shown: a timm or torchvision name, a Keras, Caffe or ONNX file, a Hugging Face folder,
FILE.py:FUNCTION.  `phosphene networks` lists what opens here, `phosphene layers -n NAME` what a network has to show,
and `phosphene --help` all verbs."""


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command, with its `verb`, and the function that does it as `run`.

    Raises:
        SystemExit: after --help or --version, or words that it does not take.
    """
    if not words:
        print(FIRST_STEPS, file=sys.stdout)
        raise SystemExit(0)
    parser = make_parser([word for word in words if not word.startswith("-")])
    args, unknown = parser.parse_known_args(_unit_arguments(words))
    if unknown:
        option = next((word.partition("=")[0] for word in unknown if word.startswith("--")), "")
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{did_you_mean(option, _options(parser))}")
    args.command_line = list(words)
    return args


def make_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all verbs, of which the one that the words begin with (`atlas run`) has its arguments."""
    parser = _Parser(
        prog="phosphene", description="Shows what an image network has learned: the images that excite its units most."
    )
    parser.add_argument("--version", action="version", version=f"phosphene {package_version()}")
    _add_verbs(parser, VERBS, "phosphene.cli", words)
    return parser


def verb_parser(verb: str) -> argparse.ArgumentParser:
    """The parser of one verb, with its arguments.

    Args:
        verb: as it is typed: "classes", "atlas run".
    """
    words = verb.split()
    parser: argparse.ArgumentParser = make_parser(words)
    for word in words:
        (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        parser = verbs.choices[word]
    return parser


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """The long options of a parser, and of the verbs that it has been given the arguments of."""
    found = {name for action in parser._actions for name in action.option_strings if name.startswith("--")}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(*map(_options, action.choices.values()))
    return found


def _add_verbs(parser: argparse.ArgumentParser, verbs: Mapping[str, str], package: str, words: Sequence[str]) -> None:
    added = parser.add_subparsers(metavar="VERB", required=True)
    for name, text in verbs.items():
        verb = added.add_parser(name, help=text, description=text)
        if name not in words[:1]:
            continue
        if name == "atlas":
            _add_verbs(verb, ATLAS_VERBS, f"{package}.atlas", words[1:])
            continue
        module = import_module(f"{package}.{name}")
        module.add_arguments(verb)
        verb.set_defaults(verb=name, run=module.run)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line of usage and the reason."""

    def error(self, message: str) -> NoReturn:
        print(f"{self._short_usage()}\nphosphene: {printable(self._reason(message), 1000)}", file=sys.stderr)
        raise SystemExit(statuses.INPUT_ERROR)

    def _short_usage(self) -> str:
        taken = [_spelled(action) for action in self._actions if not action.option_strings]
        return f"usage: {' '.join([self.prog, *taken])} [options]; all of it: {self.prog} --help"

    def _reason(self, message: str) -> str:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                if match := re.match(r"argument VERB: invalid choice: '(.*?)' \(choose", message, re.DOTALL):
                    if match[1] == "help":
                        return "no verb is called 'help'; expected --help"
                    near = nearest(match[1], action.choices, 1)
                    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(action.choices)}"
                    return f"no verb is called {match[1]!r}; {hint}"
                if message.endswith("are required: VERB"):
                    return f"expected a verb: {', '.join(action.choices)}"
        return message


def _spelled(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), name)


def _unit_arguments(arguments: Sequence[str]) -> list[str]:
    """The arguments with those that are units that begin with a minus as `- UNIT`, which is no option's spelling."""
    kept = list(arguments)
    end = kept.index("--") if "--" in kept else len(kept)
    for index, text in enumerate(kept[:end]):
        if re.match(rf"-[^-\s{_LETTERS}][^=]*[:*(\[]", text):
            kept[index] = f"- {text[1:]}"
    return kept


_LETTERS = "hnorq"  # of the options
