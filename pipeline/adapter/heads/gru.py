"""A recurrent network over the frames that are there."""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pipeline.adapter.heads.common import Dropout, Projected, check_count, mask


class GRU(Projected):
    """A bidirectional GRU of E units a direction over the valid frames, then dropout and linear 2E -> E.

    Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation", EMNLP
    2014, in PyTorch's form (the reset gate after the recurrent product). Frames that are not valid are absent: both
    directions step from one valid frame to the next, over a gap of any length as over none. With ``num_layers`` above 1
    dropout sits between the layers too.
    """

    source = "Cho et al. 2014, https://arxiv.org/abs/1406.1078"

    def __init__(self, num_features: int, embedding_size: int, dropout: float = 0.0, num_layers: int = 1):
        super().__init__(num_features, embedding_size)
        check_count(num_layers=num_layers)
        between = dropout if num_layers > 1 else 0.0
        self.gru = nn.GRU(
            num_features, embedding_size, num_layers, batch_first=True, dropout=between, bidirectional=True
        )
        self.dropout = Dropout(dropout)
        self.project_out = nn.Linear(2 * embedding_size, embedding_size)

    def hidden(self, features: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        frames = mask(features.float(), valid)
        if torch.compiler.is_exporting():
            return self._to_the_front(frames, valid)
        complete = valid.all(dim=1)
        one_draw = self.gru.num_layers == 1 or not self.training  # between layers dropout is drawn for a whole batch
        if valid.is_cuda or not one_draw or not complete.any():
            return self.dropout(self._packed(frames, valid))
        if complete.all():
            return self.dropout(self.gru(frames)[0])
        # Packing is for windows of different lengths, and slow: most windows have all their frames.
        whole, partial = complete.nonzero().squeeze(1), (~complete).nonzero().squeeze(1)
        hidden = torch.cat([self.gru(frames[whole])[0], self._packed(frames[partial], valid[partial])])
        return self.dropout(hidden[torch.argsort(torch.cat([whole, partial]))])

    def _packed(self, frames: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        places = torch.argsort(~valid, dim=1, stable=True)  # of the valid frames, in their order, then of the others
        lengths = valid.sum(dim=1).clamp(min=1).cpu()  # packing knows no empty sequence; the last mask empties it
        packed = pack_padded_sequence(_take(frames, places), lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=valid.shape[1])
        return _take(hidden, torch.argsort(places, dim=1))

    def _to_the_front(self, frames: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """What ``_packed`` gives in evaluation, without packing, which no graph (ONNX) knows.

        The valid frames are put to the front. The way forward then never sees the others, and for the way back the
        order of the valid ones alone is reversed.
        """
        place, count = torch.arange(valid.shape[1], device=valid.device), valid.sum(dim=1, keepdim=True)
        places = torch.argsort(torch.where(valid, place, place + valid.shape[1]), dim=1)
        reverse = torch.where(place < count, count - 1 - place, place)
        hidden = _take(frames, places)
        weights = iter(self.gru.all_weights)  # of one layer after the other, forward and back
        for _ in range(self.gru.num_layers):
            forward = _one_way(hidden, next(weights))
            hidden = torch.cat([forward, _take(_one_way(_take(hidden, reverse), next(weights)), reverse)], dim=-1)
        return _take(hidden, torch.argsort(places, dim=1))

    def project(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.project_out(hidden)


def _one_way(frames: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """(B, T, E): one layer of a GRU in one direction, from a state of zeros."""
    start = frames.new_zeros(1, frames.shape[0], weights[1].shape[1])
    return torch.gru(frames, start, weights, True, 1, 0.0, False, False, True)[0]


def _take(frames: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(B, T, C): frame ``places[b, t]`` of window b at t."""
    return frames.gather(1, places.unsqueeze(-1).expand(-1, -1, frames.shape[-1]))
