"""The memory: h_t = g_t h_(t-1) + (1 - g_t) x_t, with an exact backward pass.

Chunks of the sequence are walked side by side, then their last states are
chained, then each chunk receives what came before it: CHUNK + T / CHUNK steps
of whole tensors in place of T, and nothing is divided, so that a gate of 0 or 1
costs no precision."""
import torch

CHUNK = 32


def _chunks(x, count):
    return x.view(x.shape[0], count, CHUNK, *x.shape[2:])


def linear_scan(gate, update):
    """h_t = gate_t h_(t-1) + update_t, h_(-1) = 0, along dimension 1.

    gate (B, T, 1, C) and update (B, T, N, C); the N share their gates."""
    batch, tokens = update.shape[:2]
    padding = -tokens % CHUNK
    if padding:
        gate = torch.nn.functional.pad(gate, (0, 0, 0, 0, 0, padding))
        update = torch.nn.functional.pad(update, (0, 0, 0, 0, 0, padding))
    count = (tokens + padding) // CHUNK
    g, state = _chunks(gate.contiguous(), count), _chunks(update.clone().contiguous(), count)
    decay = g.clone()
    for i in range(1, CHUNK):
        state[:, :, i].addcmul_(g[:, :, i], state[:, :, i - 1])
        decay[:, :, i].mul_(decay[:, :, i - 1])
    carry = torch.zeros_like(state[:, :, 0])
    for i in range(1, count):
        torch.addcmul(state[:, i - 1, -1], decay[:, i - 1, -1], carry[:, i - 1], out=carry[:, i])
    state.addcmul_(decay, carry.unsqueeze(2))
    return state.view(batch, tokens + padding, *update.shape[2:])[:, :tokens]


class _Memory(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate, x):
        state = linear_scan(gate, (1 - gate) * x)
        ctx.save_for_backward(gate, x, state)
        return state

    @staticmethod
    def backward(ctx, grad):
        # The adjoint is the same recurrence from the end: a_t = grad_t + g_(t+1) a_(t+1).
        gate, x, state = ctx.saved_tensors
        after = torch.zeros_like(gate)
        after[:, 1:] = gate[:, 1:].flip(1)
        adjoint = linear_scan(after, grad.flip(1)).flip(1)
        change = -x
        change[:, 1:] += state[:, :-1]
        return (adjoint * change).sum(2, keepdim=True), (1 - gate) * adjoint


def memory(gate, x):
    """gate (B, T, 1, C) in [0, 1], x (B, T, N, C): the state after each token."""
    return _Memory.apply(gate, x)
