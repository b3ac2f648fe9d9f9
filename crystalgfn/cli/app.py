"""``crystalgfn <command> name=value ...``: one entry point, its exit codes, and the seven names of its commands.

Every error that a user can act on ends in one sentence and exit code 2; Ctrl-C in 130, SIGTERM in 143.
"""

from __future__ import annotations

import difflib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from crystalgfn import __version__
from crystalgfn.cli import completion, console
from crystalgfn.cli.options.commands import COMMANDS
from crystalgfn.cli.options.declared import help_text, overview
from crystalgfn.errors import CrystalGFNError, sentence, unusable
from crystalgfn.utils.interrupts import Interrupts, Terminated, Terminations
from crystalgfn.utils.progress import PROGRESS_FILE, NoProgress, ProgressFile, shown_by
from crystalgfn.utils.run_folder import RunFolder, shared_lock

if TYPE_CHECKING:
    from omegaconf import DictConfig

ERROR, INTERRUPTED, PIPE_CLOSED, TERMINATED = 2, 130, 141, 143
"""Exit codes beside 0; a fault of the program itself ends in a traceback and 1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """``crystalgfn``: the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    first = given[0] if given else "--help"
    if first in ("-h", "--help", "help"):
        return _print(overview(COMMANDS, __version__))
    if first == "--version":
        return _print(f"crystalgfn {__version__}")
    if first in ("completion", completion.ASK):
        return _complete(first, given[1:])
    name = first.replace("-", "_")
    if name not in COMMANDS:
        known = [one.replace("_", "-") for one in COMMANDS]
        near = difflib.get_close_matches(first, known, n=1)
        hint = f"did you mean {near[0]}? There" if near else "there"
        return _fail(f"There is no command {first!r}; {hint} are {', '.join(known)}.")
    return run(name, given[1:], f"crystalgfn {first}")


def _complete(first: str, given: Sequence[str]) -> int:
    """The script of a shell, or what may come next."""
    if first == completion.ASK:
        return _print("\n".join(completion.next_words(given)))
    text = completion.script(given[0]) if len(given) == 1 else None
    return (
        _fail("completion needs a shell: completion bash, completion zsh or completion fish.")
        if text is None
        else _print(text)
    )


def _named(name: str, arguments: Sequence[str] | None = None) -> int:
    """``crystalgfn-<name>``: the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    return run(name, given, f"crystalgfn-{name.replace('_', '-')}")


train, sample, evaluate, check = (partial(_named, name) for name in ("train", "sample", "evaluate", "check"))
benchmark, train_proxy, train_refiner = (partial(_named, one) for one in ("benchmark", "train_proxy", "train_refiner"))


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What is asked of every command alike."""

    help: bool = False
    cfg: bool = False
    quiet: bool = False
    verbose: bool = False
    config_dir: str | None = None


_FLAGS = {"-h": "help", "--help": "help", "--cfg": "cfg", "-q": "quiet", "--quiet": "quiet", "-v": "verbose"}
_FLAGS |= {"--verbose": "verbose"}


def flags_of(arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """The flags, and the other arguments.

    Raises:
        CrystalGFNError: --config-dir without a folder.
    """
    found: dict[str, Any] = {}
    others, rest = [], list(arguments)
    while rest:
        text = rest.pop(0)
        if text in _FLAGS:
            found[_FLAGS[text]] = True
        elif text.startswith("--config-dir="):
            found["config_dir"] = text.partition("=")[2]
        elif text == "--config-dir":
            if not rest:
                raise CrystalGFNError("--config-dir needs a folder: --config-dir <folder>")
            found["config_dir"] = rest.pop(0)
        else:
            others.append(text)
    return Flags(**found), others


def run(name: str, arguments: Sequence[str], program: str) -> int:
    """Run a command, called as ``program``, on the arguments as they were typed: the exit code."""
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # for the processes that place atoms
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own modules, as with python -m
    try:
        _check_encoding(arguments)
        flags, options = flags_of(arguments)
    except CrystalGFNError as error:
        return _fail(f"{sentence(error)}.")
    if flags.help:
        return _print(help_text(COMMANDS[name], program))
    wants_json = any(one.lstrip("-").lower() in ("json", "json=true") for one in options)
    silent = os.environ.get("RANK", "0") != "0" and COMMANDS[name].together
    with Terminations(), console.console(flags.quiet, flags.verbose, wants_json, silent) as warned:
        code = _attempt(lambda: _load(name))
        if code:
            return code
        from crystalgfn.utils import distributed

        job = Job(
            name=name, options=options, flags=flags, command=shlex.join([*program.split(), *arguments]), warned=warned
        )
        with distributed.Group() if COMMANDS[name].together else nullcontext(), _progress(flags.quiet):
            return _attempt(job.work)


def _check_encoding(arguments: Sequence[str]) -> None:
    """Refuse what the terminal's encoding cannot say, on which many a library ends in a traceback.

    Raises:
        CrystalGFNError: names the argument as far as it can be said.
    """
    for one in arguments:
        if not one.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in one):
            shown = one.encode("ascii", "replace").decode()
            encoding = sys.getfilesystemencoding()
            raise CrystalGFNError(
                f"{shown} has letters that the encoding {encoding} lacks; set PYTHONUTF8=1, or LC_ALL"
            )


def _progress(quiet: bool) -> Any:
    """Progress into the file that the environment names, if it does; otherwise nowhere for ``quiet``."""
    path = os.environ.get(PROGRESS_FILE)
    return shown_by(ProgressFile(path)) if path else shown_by(NoProgress()) if quiet else nullcontext()


def _load(name: str) -> None:
    """Import what a command needs; within an import an interrupt may end as another error, so it waits."""
    with Interrupts() as interrupts:
        import_module("crystalgfn.cli.options.objects")
        import_module(f"crystalgfn.cli.{COMMANDS[name].module or name}")
    interrupts.interrupt()


def _attempt(work: Callable[[], None]) -> int:
    """Do the work; of several processes the first that fails says why."""
    try:
        work()
        if sys.stdout is not None:  # closed by whoever began the process
            sys.stdout.flush()
    except KeyboardInterrupt as error:
        _say("terminated" if isinstance(error, Terminated) else "interrupted")
        return TERMINATED if isinstance(error, Terminated) else INTERRUPTED
    except BrokenPipeError:
        return _piped()
    except CrystalGFNError as error:
        return _fail(f"{sentence(error)}.")
    except OSError as error:
        return _fail(f"{unusable(error)}.")
    except MemoryError:
        return _fail("there is not enough memory; ask for less at a time (batch_size, n_jobs, shard_size).")
    except Exception as error:
        said = _words_of(error)
        if said is None:
            raise
        return _fail(said)
    return 0


def _words_of(error: Exception) -> str | None:
    """What other libraries' errors mean to a user; None where it is a fault of the program."""
    if type(error).__module__.startswith(("hydra", "omegaconf")):
        from hydra.errors import InstantiationException

        from crystalgfn.cli.options.compose import first_line_of
        from crystalgfn.cli.options.objects import root

        if isinstance(error, InstantiationException):
            return f"{sentence(root(error))}."
        return f"the configuration cannot be used: {first_line_of(error)}."
    if isinstance(error, RuntimeError):
        text = str(error)
        if "Could not determine home directory" in text:
            return "there is no home folder; set HOME to a folder."
        if "can't allocate memory" in text or "out of memory" in text.lower():
            return "there is not enough memory; ask for less at a time (batch_size, n_jobs, shard_size)."
        if "torch" in sys.modules:
            from crystalgfn.utils import distributed

            if distributed.cut_off(error):
                return "another process of this training ended without a word; go on by resume=true out=<folder>."
    return None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command (the name of its module) with options, flags and what was typed; ``warned``: of what, as it comes."""

    name: str
    options: Sequence[str]
    flags: Flags
    command: str
    warned: list[str]

    def work(self) -> None:
        """Read the configuration, run the command in its folder, and record what came out."""
        from crystalgfn.cli.options.objects import check_folder
        from crystalgfn.utils import distributed

        one = COMMANDS[self.name]
        with Interrupts() as interrupts:  # within the reader of configurations they may end as other errors
            config = distributed.of_first(self.read) if one.together else self.read()
        interrupts.interrupt()
        if self.flags.cfg:
            from omegaconf import OmegaConf

            console.write_text(OmegaConf.to_yaml(config).rstrip(), sys.stdout)
            return
        started, first = time.time(), distributed.first() or not one.together
        lock = shared_lock(config.get("shard"))
        folder = None if config.get("out") is None else RunFolder(config.out, one.what, one.parts, lock, active=first)
        if folder is not None and not one.beside:
            check_folder(self.name, folder.path)
        with folder or nullcontext():
            made = import_module(f"crystalgfn.cli.{one.module or self.name}").run(config, self.command, folder)
            if first:
                self.record(config, folder, started, made)

    def read(self) -> DictConfig:
        """The configuration; the time of day is the first process's for all."""
        from omegaconf import OmegaConf

        from crystalgfn.cli.options.compose import compose_config

        config = compose_config(self.name, self.options, self.flags.config_dir)
        if COMMANDS[self.name].narrows and config.sampler == "auto":
            from crystalgfn.cli.options.objects import space_arguments
            from crystalgfn.sampling.sampler_files import default_sampler

            config.sampler = default_sampler(space_arguments(config.get("space")))
        if not self.flags.cfg:
            OmegaConf.resolve(config)
        return config

    def record(self, config: DictConfig, folder: RunFolder | None, started: float, made: Mapping[str, Any]) -> None:
        """Write ``run.json``, and print it with ``json=true``."""
        from crystalgfn.cli.options.objects import plain_config
        from crystalgfn.utils import provenance

        content = provenance.json_safe(
            {
                "command": self.command,
                "settings": plain_config(config),
                "seed": config.get("seed"),
                "versions": {**provenance.versions(), **provenance.libraries()},
                "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
                "seconds": round(time.time() - started, 3),
                **made,
                "warnings": list(self.warned),
            }
        )
        if folder is not None:
            folder.record(content)
        if config.get("json"):
            console.write_text(json.dumps(content, indent=2, default=str), sys.stdout)


def _print(text: str) -> int:
    try:
        console.write_text(text, sys.stdout)
    except BrokenPipeError:
        return _piped()
    return 0


def _piped() -> int:
    """Whoever read the output has enough of it; nothing is to be said, not even at the end of the process."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED


def _fail(words: str) -> int:
    distributed = sys.modules.get("crystalgfn.utils.distributed")
    if distributed is None or distributed.fails_first():
        console.write_text(f"error: {words}", sys.stderr)
    return ERROR


def _say(words: str) -> None:
    """To people; once for all processes."""
    distributed = sys.modules.get("crystalgfn.utils.distributed")
    if distributed is None or distributed.first():
        console.write_text(words, sys.stderr)
