"""The language side: what stands before the question is read once a picture, answers are written or read in batches.

Legend: R answers, S pictures, T tokens, D language width.

Sequences are padded on the right. Attention is causal, so a padded position can never reach a real one in the same
pass; only when tokens follow behind the padding (writing) is a mask needed. Positions are always those the sequence
would have alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from unibiomed_core.engine.features import Counts
from unibiomed_core.model.processor import Processor
from unibiomed_core.model.unibiomed import UniBiomed


@dataclass(frozen=True, slots=True)
class Row:
    """One answer to be given.

    Args:
        prefix: Ids up to and including the last image token's closing mark; empty for a text without a picture.
        suffix: The other ids of the prompt, at least one.
        picture: Number of the picture among the image tokens; None without one.
        answer: Ids of a known answer that is read instead of written.
        max_new_tokens: Longest answer that may be written.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    picture: int | None
    answer: tuple[int, ...] | None
    max_new_tokens: int

    @property
    def longest(self) -> int:
        """Tokens behind the prefix, at most."""
        return len(self.suffix) + (self.max_new_tokens if self.answer is None else len(self.answer))


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One answer.

    Args:
        ids: Ids as written or read.
        states: (K, D) last hidden state at each ``[SEG]`` that went in as input, in order. A ``[SEG]`` that is the very
            last token never goes in and has none, as in the published model.
        truncated: The length limit cut it.
        likelihood: Mean log-probability of a token of a known answer; None for a written one.
    """

    ids: tuple[int, ...]
    states: Tensor
    truncated: bool
    likelihood: float | None = None


class Reader:
    """Answers rows with one model.

    Args:
        working_bytes: Bound for the keys and values of one batch of answers; larger batches are split.
    """

    def __init__(self, model: UniBiomed, processor: Processor, counts: Counts, working_bytes: int) -> None:
        self.model = model
        self.processor = processor
        self.counts = counts
        self.working_bytes = working_bytes

    def answer(self, rows: Sequence[Row], image_tokens: Sequence[Tensor], score: bool = False) -> list[Answer]:
        """Answer all rows, in their order.

        Rows with equal prefix ids share one pass over the prefix, with one sequence for each picture.

        Args:
            image_tokens: (P, D) for each picture.
            score: Also give the likelihood of known answers, which costs logits at every token of them.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for number, row in enumerate(rows):
            groups.setdefault(row.prefix, []).append(number)
        answers: dict[int, Answer] = {}
        for prefix, numbers in groups.items():
            pictures = sorted({p for n in numbers if (p := rows[n].picture) is not None}) if prefix else []
            shared = self.read_prefix(prefix, [image_tokens[p] for p in pictures])
            for part in self._parts(rows, numbers, len(prefix)):
                chosen = [rows[n] for n in part]
                # Always a copy: reading and writing extend a cache in place.
                cache = _select(shared, [pictures.index(r.picture) for r in chosen if r.picture is not None])
                known = chosen[0].answer is not None
                given = self._read(chosen, cache, score) if known else self._write(chosen, cache)
                answers.update(zip(part, given, strict=True))
        return [answers[n] for n in range(len(rows))]

    def read_prefix(self, prefix: tuple[int, ...], image_tokens: Sequence[Tensor]) -> DynamicCache:
        """Keys and values of S pictures' common prefix."""
        cache = DynamicCache()
        if prefix:
            ids = self._tensor([prefix] * len(image_tokens))  # (S, T)
            self.model.language(self.model.embed(ids, torch.stack(list(image_tokens))), cache=cache)
            self.counts.prefix_reads += len(image_tokens)
        return cache

    def _parts(self, rows: Sequence[Row], numbers: list[int], prefix_length: int) -> Iterator[list[int]]:
        """Row numbers in batches that fit; known and unknown answers apart."""
        sizes = self.model.config.language
        item_bytes = self.model.vlm.lm_head.weight.element_size()
        token_bytes = 2 * sizes.layers * sizes.kv_heads * (sizes.hidden // sizes.heads) * item_bytes
        for known in (True, False):
            same = [n for n in numbers if (rows[n].answer is not None) == known]
            if not same:
                continue
            longest = prefix_length + max(rows[n].longest for n in same)
            count = max(1, self.working_bytes // (token_bytes * longest))
            yield from (same[i : i + count] for i in range(0, len(same), count))

    def _read(self, rows: list[Row], cache: DynamicCache, score: bool) -> list[Answer]:
        """One pass over prompt and answer; equal to writing the same answer."""
        given = [row.answer or () for row in rows]
        inputs = [(*row.suffix, *answer[:-1]) for row, answer in zip(rows, given, strict=True)]
        hidden = self.model.language(self.model.embed(self._padded(inputs), None), cache=cache)  # (R, T, D)
        answers = []
        for row, answer, states in zip(rows, given, hidden, strict=True):
            start = len(row.suffix)  # a [SEG] in the prompt is not searched
            where = [start + i for i, token in enumerate(answer[:-1]) if token == self.processor.ids.seg]
            likelihood = None
            if score:
                logits = self.model.logits(states[start - 1 : start - 1 + len(answer)]).float()  # (G, V)
                chosen = logits.log_softmax(-1).gather(1, self._tensor(answer).unsqueeze(1))
                likelihood = float(chosen.mean())
            truncated = answer[-1:] == (self.processor.ids.seg,)
            answers.append(Answer(answer, states[where], truncated, likelihood))
        return answers

    def _write(self, rows: list[Row], cache: DynamicCache) -> list[Answer]:
        """Greedy decoding until the stop text or the limit; a finished answer leaves the batch."""
        seg = self.processor.ids.seg
        start = cache.get_seq_length()
        lengths = self._tensor([len(row.suffix) for row in rows])  # (R,)
        room = self.model.config.language.max_positions - start
        limits = [min(row.max_new_tokens, room - len(row.suffix)) for row in rows]
        hidden = self.model.language(self.model.embed(self._padded([r.suffix for r in rows]), None), cache=cache)
        width = hidden.shape[1]
        real = torch.arange(width, device=lengths.device) < lengths.unsqueeze(1)
        mask = torch.cat([real.new_ones(len(rows), start), real], dim=1).long()  # (R, start + T)
        last = hidden[torch.arange(len(rows), device=lengths.device), lengths - 1]  # (R, D)
        position = start + lengths
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
                cache.batch_select_indices(keep)
                chosen, mask, position = chosen[keep], mask[keep], position[keep]
                running = [running[place] for place in going]
            mask = torch.cat([mask, mask.new_ones(len(running), 1)], dim=1)
            embeddings = self.model.embed(chosen.unsqueeze(1), None)  # (R', 1, D)
            last = self.model.language(embeddings, mask, position.unsqueeze(1), cache)[:, 0]
            position = position + 1
            self.counts.decode_steps += 1
            for place, number in enumerate(running):
                if written[number][-1] == seg:
                    states[number].append(last[place])
        empty = last.new_zeros(0, last.shape[-1])
        return [
            Answer(tuple(ids), torch.stack(found) if found else empty, truncated)
            for ids, found, truncated in zip(written, states, cut, strict=True)
        ]

    def _padded(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """(R, T) ids, padded on the right."""
        width = max(len(s) for s in sequences)
        return self._tensor([[*s, *[self.processor.ids.pad] * (width - len(s))] for s in sequences])

    def _tensor(self, values: object) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.model.device)


def _select(cache: DynamicCache, rows: Sequence[int]) -> DynamicCache:
    """A new cache whose rows are copies of the rows numbered; an empty one stays empty."""
    picked = DynamicCache()
    for number, layer in enumerate(cache.layers):
        if isinstance(layer, DynamicLayer) and layer.keys is not None and layer.values is not None:
            index = torch.tensor(rows, device=layer.keys.device)
            picked.update(layer.keys[index], layer.values[index], number)
    return picked
