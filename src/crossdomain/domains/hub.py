"""Domains whose items are rows of public data sets, from the Hugging Face hub or from a folder that mirrors it.

A folder holds a data set under its name on the hub, `<folder>/m-a-p/SuperGPQA/`, either as a download of the repository or
as any Parquet or JSON Lines files with its columns; the hub is then not asked. Splits depend on the rows alone: they are
drawn by a fixed shuffle, stratified where rows have strata, and no two share a question. Rows that are not of the data
set's schema are skipped and counted; if they are more than 1 %, that is an error.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from crossdomain import chat, provenance
from crossdomain.domains.base import Domain, Item

logger = logging.getLogger(__name__)
Row = Mapping[str, Any]
Count = Annotated[int, Field(ge=1)]
MALFORMED_ALLOWED = 0.01  # of the rows of a data set


class DataError(RuntimeError):
    """A data set cannot be used; the message names it, says what is wrong and what to do."""


class RowError(ValueError):
    """A row is not of the data set's schema; the message says why."""


class HubSettings(BaseModel):
    """Settings of a profile for its hub domains; `profiles/paper.yaml` says what each is for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str | None
    train_prompts: Count
    held_out_prompts: Count
    prompt_tokens: Count
    completion_tokens: Count
    writing_reward: Literal["judge", "similarity"]
    judge_url: str
    judge_model: str


@dataclass(frozen=True)
class DataSet:
    """A data set: its name on the hub, the columns that are read, its split and its configuration."""

    name: str
    columns: tuple[str, ...]
    split: str = "train"
    config: str | None = None


@dataclass(frozen=True)
class Task:
    """A row that can be used: its item, and the stratum that splits hold in proportion."""

    item: Item
    stratum: tuple[str, ...] = ()


class HubDomain(Domain):
    """A domain made of rows of public data sets.

    Class attributes, besides those of `Domain`:
        sources: the data sets that are split into test, dev and train, in that order.
        apart: splits that are a data set of their own.
        sizes: prompts of each split but `train`.
    """

    sources: ClassVar[tuple[DataSet, ...]]
    apart: ClassVar[Mapping[str, DataSet]] = {}
    sizes: ClassVar[Mapping[str, int]]
    max_new_tokens = 0  # the profile's `completion_tokens`

    def __init__(self, settings: HubSettings, model: str) -> None:
        self.settings, self.model = settings, model
        self.max_new_tokens = settings.completion_tokens  # type: ignore[misc]  # here it belongs to the instance

    @abstractmethod
    def read(self, row: Row, source: DataSet) -> Task | None:
        """The task of a row; None if it is of the schema but cannot be used.

        Raises:
            RowError: it is not of the data set's schema.
        """

    def determinants(self) -> dict[str, Any]:
        """What besides its own code determines training and evaluation: items, longest response, what counts of one."""
        digest = hashlib.sha256()
        for split, items in sorted(self._splits.items()):
            for item in items:
                digest.update(repr((split, item.prompt, item.target, item.prefill)).encode())
        answers = provenance.code_fingerprint(chat)
        return {"items": digest.hexdigest()[:16], "completion_tokens": self.max_new_tokens, "answers": answers}

    def items(self, split: str) -> list[Item]:
        return self._splits[split]

    @cached_property
    def _splits(self) -> dict[str, list[Item]]:
        taken: set[str] = set()
        splits = {split: self._drawn([source], [split], taken)[split] for split, source in self.apart.items()}
        rest = [split for split in (*self.sizes, "train") if split not in splits]
        return splits | self._drawn(self.sources, rest, taken)

    def size(self, split: str) -> int:
        """Prompts of a split, known before anything is read."""
        if split == "train":
            return self.settings.train_prompts
        return min(self.sizes[split], self.settings.held_out_prompts)

    def _drawn(self, sources: Sequence[DataSet], splits: Sequence[str], taken: set[str]) -> dict[str, list[Item]]:
        """Items for some splits, without the questions in `taken`, to which theirs are added."""
        tasks = [task for source in sources for task in self._tasks(source)]
        name = ", ".join(source.name for source in sources)
        left_out: Counter[str] = Counter()
        stream = self._fitting(in_proportion(tasks, name), taken, left_out)
        found: dict[str, list[Item]] = {}
        for split in splits:
            size = self.size(split)
            found[split] = list(islice(stream, size))
            if len(found[split]) < size:
                lost = ", ".join(f"{count} {why}" for why, count in left_out.items()) or "none"
                raise DataError(
                    f"{name}: {len(found[split])} of the {size} prompts of the split {split!r}; {len(tasks)} rows can be "
                    f"used, left out were {lost}. Set hub.train_prompts or hub.held_out_prompts lower, or give all files"
                )
        if left_out:
            logger.info("%s: left out %s", name, ", ".join(f"{count} {why}" for why, count in left_out.items()))
        return found

    def _fitting(self, tasks: Iterable[Task], taken: set[str], left_out: Counter[str]) -> Iterator[Item]:
        tokenizer = chat.load_tokenizer(self.model)
        for task in tasks:
            question = " ".join(task.item.prompt.split()).casefold()
            if question in taken:
                left_out["with a question seen before"] += 1
            elif len(tokenizer(task.item.prompt)["input_ids"]) > self.settings.prompt_tokens:
                left_out[f"of more than {self.settings.prompt_tokens} tokens"] += 1
            else:
                taken.add(question)
                yield task.item

    def _tasks(self, source: DataSet) -> list[Task]:
        rows = load(source, self.settings.folder)
        tasks, unused, faults = [], 0, []
        for number, row in enumerate(rows):
            try:
                task = self.read(row, source)
            except RowError as fault:
                faults.append(f"row {number}: {fault}")
                continue
            if task is None:
                unused += 1
            else:
                tasks.append(task)
        if len(faults) > MALFORMED_ALLOWED * len(rows):
            raise DataError(
                f"{source.name}: {len(faults)} of {len(rows)} rows are not of its schema, the first is {faults[0]}; at "
                f"most {MALFORMED_ALLOWED:.0%} are skipped. Of {', '.join(source.columns)} it has "
                f"{', '.join(rows.column_names)}; give its own files"
            )
        if faults:
            logger.warning("%s: skipped %d of %d rows, %s", source.name, len(faults), len(rows), "; ".join(faults[:3]))
        if unused:
            logger.info("%s: %d of %d rows are of no use here", source.name, unused, len(rows))
        return tasks


def load(source: DataSet, folder: str | None) -> Any:
    """The rows of a data set as a `datasets.Dataset`, with the columns that are read and exist.

    Raises:
        DataError: it is not in the folder, the hub cannot be reached, or its files cannot be read.
    """
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    where = source.name
    if folder is not None:
        where = str(Path(folder) / source.name)
        if not Path(where).is_dir():
            raise DataError(
                f"{source.name}: no folder {where}; put its files there (`hf download {source.name} --repo-type dataset "
                f"--local-dir {where}`), or set hub.folder=null to read it from the hub"
            )
    try:
        rows = load_dataset(where, source.config, split=source.split)
    except Exception as error:  # datasets raises what its readers, the hub's client and the network raise
        reason = " ".join(str(error.__cause__ or error).split())
        raise DataError(
            f"{source.name}: cannot be read from {'the hub' if folder is None else where} "
            f"({type(error).__name__}: {reason[:300]}); download it and name the folder in hub.folder, or give whole files"
        ) from error
    columns = [column for column in source.columns if column in rows.column_names]
    if len(rows) == 0 or not columns:
        raise DataError(
            f"{source.name}: {len(rows)} rows with the columns {', '.join(rows.column_names)} in {where}, expected some "
            f"with {', '.join(source.columns)}; give its own files"
        )
    return rows.select_columns(columns)


def in_proportion(tasks: Sequence[Task], name: str) -> list[Task]:
    """The tasks in a fixed shuffled order of which every stretch holds each stratum in proportion, to within a task or two.

    Each stratum is shuffled and spread evenly over the whole, from an offset of its own; one stratum is just shuffled.

    Args:
        tasks: in any order that is always the same.
        name: what the order depends on besides.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    strata: defaultdict[tuple[str, ...], list[Task]] = defaultdict(list)
    for task in tasks:
        strata[task.stratum].append(task)
    placed: list[tuple[float, int, Task]] = []
    for _, members in sorted(strata.items()):
        offset = rng.random()
        for rank, i in enumerate(rng.permutation(len(members))):
            placed.append(((rank + offset) / len(members), len(placed), members[i]))
    return [task for _, _, task in sorted(placed, key=lambda entry: entry[:2])]


def text(row: Row, *columns: str) -> str:
    """The first of some columns of a row that holds a text.

    Raises:
        RowError: none does.
    """
    for column in columns:
        if isinstance(value := row.get(column), str) and value.strip():
            return value.strip()
    raise RowError(f"no text in {' or '.join(columns)}")
