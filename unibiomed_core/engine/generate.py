"""The language side: known answers are read, several in one sequence a picture; unknown ones are written in batches.

Legend: R rows, S sheets, N nodes of a sheet, T tokens, D language width, V vocabulary.

A sheet holds what is to be read behind one prefix as a tree of ids. Written rows are padded on the right; a padded
place is never looked at. Positions are always those a text would have alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unibiomed_core.engine import partial_forward
from unibiomed_core.engine.features import WorkCounts
from unibiomed_core.engine.kv_cache import KeyValues, Prefix, token_bytes
from unibiomed_core.engine.partial_forward import DecodeStep
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed

_SHEET_NODES = 384
"""Nodes after which a sheet is full. Attention is over every pair of nodes of a sheet: with so many it takes a quarter
of the multiplications of a pass with mini, a fourteenth at 1b size."""

_LOGITS_AT_ONCE = 64
"""Places whose logits exist at once while answers are scored; with 150 000 words each holds 0.6 MB."""


class Tree:
    """Texts as ids, joined at equal beginnings."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.depths: list[int] = []
        self._parents: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, ids: Iterable[int]) -> list[int]:
        """Lay out one text; returns the node of each of its ids."""
        node = -1
        path: list[int] = []
        for token in ids:
            child = self._children.get((node, token))
            if child is None:
                child = self._children[node, token] = len(self.tokens)
                self.tokens.append(token)
                self._parents.append(node)
                self.depths.append(len(path))
            node = child
            path.append(node)
        return path

    def sees(self) -> NDArray[np.bool_]:
        """(N, N), which node each node sees: itself and those above it."""
        count = len(self)
        seen = np.eye(count, dtype=bool)
        for node, parent in enumerate(self._parents):  # a parent always stands before its children
            if parent >= 0:
                seen[node, :node] |= seen[parent, :node]
        return seen


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One answer to be given.

    Args:
        prefix: What stands before, as read; rows about one picture share the object.
        suffix: The other ids of the prompt, at least one.
        answer: Ids of a known answer that is read instead of written.
        max_new_tokens: Longest answer that may be written.
        scored: A known answer's likelihood is wanted; that costs logits at every token of it.
    """

    prefix: Prefix
    suffix: tuple[int, ...]
    answer: tuple[int, ...] | None
    max_new_tokens: int
    scored: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedAnswer:
    """One answer.

    Args:
        ids: Ids as written or read.
        states: (K, D) last hidden state at each ``[SEG]`` that went in as input, in order. A ``[SEG]`` that is the very
            last token never goes in and has none, as in the published model.
        truncated: The length limit cut it.
        log_probability: Of the whole answer, the sum over its tokens, where it was to be scored.
    """

    ids: tuple[int, ...]
    states: Tensor
    truncated: bool
    log_probability: float | None = None


@dataclass(slots=True)
class _Sheet:
    """Known rows about one picture: their numbers, and the node of every id that is read."""

    prefix: Prefix
    tree: Tree = field(default_factory=Tree)
    paths: dict[int, list[int]] = field(default_factory=dict)


class AnswerGenerator:
    """Answers rows with one model.

    Args:
        working_bytes: Bound for the keys and values of one batch of rows or sheets; larger batches are split.
    """

    def __init__(self, model: UniBiomed, processor: Processor, counts: WorkCounts, working_bytes: int) -> None:
        self.model = model
        self.processor = processor
        self.counts = counts
        self.working_bytes = working_bytes

    def answer(self, rows: Sequence[Row]) -> list[GeneratedAnswer]:
        """Answer all rows, in their order."""
        nothing = torch.zeros(
            0, self.model.config.language.hidden, dtype=self.model.vlm.dtype, device=self.model.device
        )
        answers = {
            n: GeneratedAnswer(row.answer, nothing, self._cut_at_seg(row.answer))
            for n, row in enumerate(rows)
            if row.answer is not None and not self._is_read(row)
        }
        for sheets in self._batches(self._sheets(rows)):
            answers.update(self._read(rows, sheets))
        for numbers in self._written_parts(rows):
            answers.update(zip(numbers, self._write([rows[n] for n in numbers]), strict=True))
        return [answers[n] for n in range(len(rows))]

    # Known answers

    def _sheets(self, rows: Sequence[Row]) -> list[_Sheet]:
        """Known rows on sheets, in the order of the rows."""
        open_sheets: dict[int, _Sheet] = {}
        sheets: list[_Sheet] = []
        for number, row in enumerate(rows):
            if row.answer is None or not self._is_read(row):
                continue
            sheet = open_sheets.get(id(row.prefix))
            if sheet is None or len(sheet.tree) >= _SHEET_NODES:
                sheet = open_sheets[id(row.prefix)] = _Sheet(row.prefix)
                sheets.append(sheet)
            sheet.paths[number] = sheet.tree.add((*row.suffix, *row.answer[: self._needed(row)]))
        return sheets

    def _is_read(self, row: Row) -> bool:
        """Whether anything is to be learnt from reading a known answer: masks of it, or its likelihood."""
        return row.scored or self._needed(row) > 0

    def _needed(self, row: Row) -> int:
        """How much of a known answer has to go in: up to its last ``[SEG]``, or all but the last id to score it."""
        answer = (row.answer or ())[:-1]
        if row.scored:
            return len(answer)
        return max((i + 1 for i, token in enumerate(answer) if token == self.processor.ids.seg), default=0)

    def _batches(self, sheets: Sequence[_Sheet]) -> Iterator[list[_Sheet]]:
        """Sheets with prefixes of equal length, as many as fit at once."""
        for length in dict.fromkeys(sheet.prefix.length for sheet in sheets):
            same = [sheet for sheet in sheets if sheet.prefix.length == length]
            count = self._fitting(length + max(len(sheet.tree) for sheet in same))
            yield from (same[i : i + count] for i in range(0, len(same), count))

    def _read(self, rows: Sequence[Row], sheets: Sequence[_Sheet]) -> Iterator[tuple[int, GeneratedAnswer]]:
        """One pass over sheets; equal to writing the same answers."""
        width, before = max(len(s.tree) for s in sheets), sheets[0].prefix.length
        ids = self._padded([s.tree.tokens for s in sheets])  # (S, N)
        positions = self._padded([s.tree.depths for s in sheets]) + before
        mask = torch.from_numpy(attention([s.tree for s in sheets], before)).to(ids.device)  # (S, 1, N, W)
        wanted = [
            sorted({n for number, path in s.paths.items() for n in self._looked_at(rows[number], path)}) for s in sheets
        ]
        past = KeyValues([s.prefix for s in sheets], width)
        hidden = partial_forward.read(self.model, ids, positions, mask, past, self._padded(wanted))  # (S, K, D)
        self.counts.text_tokens += sum(len(s.tree) for s in sheets)
        for sheet, nodes, states in zip(sheets, wanted, hidden, strict=True):
            place = {node: k for k, node in enumerate(nodes)}
            scores = self._scores(rows, sheet, place, states)
            for number, path in sheet.paths.items():
                answer = rows[number].answer or ()
                where = [place[node] for node in self._seg_nodes(rows[number], path)]
                yield number, GeneratedAnswer(answer, states[where], self._cut_at_seg(answer), scores.get(number))

    def _cut_at_seg(self, answer: tuple[int, ...]) -> bool:
        return answer[-1:] == (self.processor.ids.seg,)

    def _seg_nodes(self, row: Row, path: Sequence[int]) -> list[int]:
        """Nodes of the answer's ``[SEG]``; one in the prompt is not searched."""
        behind = zip(path[len(row.suffix) :], row.answer or (), strict=False)
        return [node for node, token in behind if token == self.processor.ids.seg]

    def _looked_at(self, row: Row, path: Sequence[int]) -> list[int]:
        """Nodes whose states are needed: each ``[SEG]``, or all that an answer's tokens are foretold from."""
        return [*self._seg_nodes(row, path), *(path[len(row.suffix) - 1 :] if row.scored else ())]

    def _scores(self, rows: Sequence[Row], sheet: _Sheet, place: Mapping[int, int], states: Tensor) -> dict[int, float]:
        """Log-probability of each answer of a sheet that is to be scored; answers that begin alike share logits."""
        asked = [(n, path[len(rows[n].suffix) - 1 :]) for n, path in sheet.paths.items() if rows[n].scored]
        nodes = sorted({node for _, path in asked for node in path})
        tables: dict[int, Tensor] = {}  # (V,) each
        for start in range(0, len(nodes), _LOGITS_AT_ONCE):
            part = nodes[start : start + _LOGITS_AT_ONCE]
            logits = self.model.logits(states[[place[node] for node in part]]).float()
            tables.update(zip(part, logits.log_softmax(-1).unbind(), strict=True))
        return {
            number: float(sum(tables[node][token] for node, token in zip(path, rows[number].answer or (), strict=True)))
            for number, path in asked
        }

    # Unknown answers

    def _written_parts(self, rows: Sequence[Row]) -> Iterator[list[int]]:
        """Numbers of rows that are written together: prefixes of equal length, as many as fit."""
        unknown = [n for n, row in enumerate(rows) if row.answer is None]
        for length in dict.fromkeys(rows[n].prefix.length for n in unknown):
            same = [n for n in unknown if rows[n].prefix.length == length]
            count = self._fitting(length + max(len(rows[n].suffix) + rows[n].max_new_tokens for n in same))
            yield from (same[i : i + count] for i in range(0, len(same), count))

    def _write(self, rows: Sequence[Row]) -> list[GeneratedAnswer]:
        """Greedy decoding until the stop text or the limit; a finished answer leaves the batch."""
        room = self.model.config.language.max_positions - rows[0].prefix.length
        limits = [min(row.max_new_tokens, room - len(row.suffix)) for row in rows]
        last, stepper = self._prompted(rows, max(limits))
        written: list[list[int]] = [[] for _ in rows]
        states: list[list[Tensor]] = [[] for _ in rows]
        cut = [True] * len(rows)
        running = list(range(len(rows)))
        while True:
            chosen = self.model.logits(last).argmax(-1)  # (R',)
            going = []
            for place, (number, token) in enumerate(zip(running, chosen.tolist(), strict=True)):
                written[number].append(token)
                if self.processor.stops(written[number]):
                    cut[number] = False
                elif len(written[number]) < limits[number]:
                    going.append(place)
            if not going:
                break
            if len(going) < len(running):
                keep = self._tensor(going)
                stepper.keep(keep)
                chosen = chosen[keep]
                running = [running[place] for place in going]
            last = stepper.step(chosen)  # (R', D)
            self.counts.decode_steps += 1
            for place, number in enumerate(running):
                if written[number][-1] == self.processor.ids.seg:
                    states[number].append(last[place])
        empty = last.new_zeros(0, last.shape[-1])
        return [
            GeneratedAnswer(tuple(ids), torch.stack(found) if found else empty, truncated)
            for ids, found, truncated in zip(written, states, cut, strict=True)
        ]

    def _prompted(self, rows: Sequence[Row], longest: int) -> tuple[Tensor, DecodeStep]:
        """Read the prompts of R rows; (R, D) states at the last id of each, and what goes on from there."""
        start = rows[0].prefix.length
        lengths = self._tensor([len(row.suffix) for row in rows])  # (R,)
        width = int(lengths.max())
        past = KeyValues([row.prefix for row in rows], width + longest)
        ids = self._padded([row.suffix for row in rows])  # (R, T)
        positions = torch.arange(start, start + width, device=ids.device).expand_as(ids)
        mask = torch.ones(width, start + width, dtype=torch.bool, device=ids.device).tril(start)
        mask = mask.expand(len(rows), 1, -1, -1)
        last = partial_forward.read(self.model, ids, positions, mask, past, lengths.unsqueeze(1) - 1)[:, 0]  # (R, D)
        self.counts.text_tokens += int(lengths.sum())
        seen = None
        if int(lengths.min()) < width:
            places = torch.arange(start + width + longest, device=lengths.device)
            seen = (places < start + lengths.unsqueeze(1)) | (places >= start + width)  # (R, W)
        return last, DecodeStep(self.model, past, start + lengths, seen)

    def _fitting(self, tokens: int) -> int:
        """How many sequences of so many tokens are within the budget."""
        return max(1, self.working_bytes // (token_bytes(self.model) * tokens))

    def _padded(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """(R, T) int64, padded on the right."""
        width = max(len(s) for s in sequences)
        return self._tensor([[*s, *[0] * (width - len(s))] for s in sequences])

    def _tensor(self, values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.model.device)


def attention(trees: Sequence[Tree], before: int) -> NDArray[np.bool_]:
    """(R, 1, N, before + N), what each node of each row may look at: all of what stands before, and its own line.

    Rows are padded to the widest tree; a padded node looks at what stands before and at itself, so that it has
    something to share attention among.
    """
    width = max(len(tree) for tree in trees)
    mask = np.zeros((len(trees), 1, width, before + width), bool)
    mask[..., :before] = True
    mask[:, 0, np.arange(width), before + np.arange(width)] = True
    for row, tree in zip(mask, trees, strict=True):
        row[0, : len(tree), before : before + len(tree)] = tree.sees()
    return mask
