"""Text that a trained model writes on."""

from collections.abc import Generator, Mapping
from typing import Any

import torch
from torch import Tensor

from attnsweep.core.errors import UserError
from attnsweep.tasks.text.decoder import Decoder
from attnsweep.tasks.text.encoding import encoding_of

Steps = Generator[Tensor, int, None]


def continued(
    model: Decoder,
    config: Mapping[str, Any],
    prompt: str,
    *,
    tokens: int = 200,
    temperature: float = 0.8,
    top: int = 0,
    seed: int = 0,
) -> str:
    """The prompt, and `tokens` tokens drawn after it by a model in evaluation mode; at temperature 0 always
    the likeliest, with `top` one of the so many likeliest.

    Where the context is full, the model goes on from the second half of it. Raises UserError where the prompt
    leaves no room in it, or is no text.
    """
    encoding = encoding_of(config["encoding"], config["dataset"], config["vocabulary"])
    known = encoding.encode(utf_8(prompt))
    if len(known) >= config["context"]:
        raise UserError(
            f"the prompt has {len(known):,} tokens, and context={config['context']} leaves room for "
            f"{config['context'] - 1}; shorten it"
        )
    draw = torch.Generator().manual_seed(seed)
    steps = logits_after(model, known, begin=encoding.begin, context=config["context"])
    written: list[int] = []
    logits = next(steps)
    while len(written) < tokens:
        logits[encoding.known :] = -torch.inf
        written.append(drawn(logits, temperature=temperature, top=top, draw=draw))
        if len(written) < tokens:
            logits = steps.send(written[-1])
    return encoding.decode([*known, *written]).decode(errors="replace")


def utf_8(prompt: str) -> bytes:
    """The bytes of a prompt. Raises UserError where a command line gave it in another encoding."""
    try:
        return prompt.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"the prompt is not UTF-8 from character {error.start + 1} on; set a locale such as C.UTF-8"
        ) from error


@torch.no_grad()
def step(model: Decoder, tokens: list[int], caches: Any) -> Tensor:
    """The logits (v,) behind the last of some tokens, in float32."""
    device = model.embedding.weight.device
    return model(torch.tensor([tokens], device=device), caches)[0, -1].float().cpu().clone()


def logits_after(model: Decoder, known: list[int], *, begin: int, context: int) -> Steps:
    """The logits behind the known tokens, then behind each token that is sent."""
    held, caches = [begin, *known], model.caches()
    logits = step(model, held, caches)
    while True:
        token = yield logits
        if len(held) == context:
            held, caches = [begin, *held[len(held) - context // 2 :]], model.caches()
            step(model, held, caches)
        held.append(token)
        logits = step(model, [token], caches)


def drawn(logits: Tensor, *, temperature: float, top: int, draw: torch.Generator) -> int:
    """A token drawn from softmax(logits / temperature). Raises UserError where the logits are no numbers."""
    if logits.isnan().any():
        raise UserError("the model's answers are no numbers, as its training diverged; choose another trial")
    if temperature == 0:
        return int(logits.argmax())
    if top:
        least = logits.topk(min(top, len(logits))).values[-1]
        logits = logits.masked_fill(logits < least, -torch.inf)
    temperature = min(max(temperature, 1e-30), 1e30)  # what float32 can divide by
    return int(torch.multinomial((logits / temperature).softmax(dim=-1), 1, generator=draw))
