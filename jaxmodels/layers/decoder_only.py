"""Skeleton of decoder-only language models: embedding, blocks with a cache, logits of the next token.

Dimensions: B batch, T tokens, M width, V vocabulary.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.kv_cache import KVCache, positions
from jaxmodels.layers.model import Model
from jaxmodels.layers.stack import stack
from jaxmodels.layers.transformer_rules import transformer_rules


class DecoderOnly(Model):
    """Base of the models that map tokens to logits of the next token; with a cache, to (logits, cache).

    A model has the fields tied, unroll and dtype besides, makes `blocks` and the last `norm` in its setup,
    and gives in `embedded` the first block's input.
    """

    vocabulary: int
    length: int  # most tokens of a text
    width: int
    depth: int
    heads: int

    def setup(self):
        """Creates the matrices of the vocabulary."""
        small = nn.initializers.normal(0.02)
        self.embed = nn.Embed(self.vocabulary, self.width, embedding_init=small, dtype=self.dtype)
        if not self.tied:
            self.head = self.param("head", small, (self.vocabulary, self.width))

    def __call__(self, tokens_BT, keys_B=None, cache=None, count_B=None, segments_BT=None):
        """Logits BTV; keys_B: one random key per example in training. cache: of the tokens before these.

        count_B: the first count tokens of each row are real, the others are padding; None is all.
        segments_BT: the document of each token, where several are packed into a row; a token attends to its
        own document only, and 0 is padding.
        """
        x_BTM, cache = self.hidden(tokens_BT, keys_B, cache, count_B, segments_BT)
        table_VM = self.table()
        logits_BTV = x_BTM @ table_VM.astype(x_BTM.dtype).T
        return logits_BTV if cache is None else (logits_BTV, cache)

    def hidden(self, tokens_BT, keys_B=None, cache=None, count_B=None, segments_BT=None):
        """(x_BTM, cache): the hidden states whose products with table() are the logits."""
        B, T = tokens_BT.shape
        if self.length < T:
            raise ValueError(
                f"{type(self).__name__}: got {T} tokens; expected at most {self.length}. Shorten the "
                "windows or make the model longer."
            )
        if cache is not None and count_B is None:
            count_B = jnp.full(B, T, jnp.int32)
        position_BT = positions(tokens_BT, cache, segments_BT)
        x_BTM, *shared = self.embedded(tokens_BT, position_BT, keys_B)
        shared = (*shared, count_B, segments_BT)
        x_BTM, cache = self.layers(x_BTM, keys_B, cache, *shared)
        return self.norm(x_BTM), cache

    @nn.nowrap  # else the path of a block would have the model once more
    def layers(self, x_BTM, keys_B, cache, *shared):
        """(x_BTM, cache) after all blocks."""
        return stack(self.blocks, self.depth, x_BTM, keys_B, cache, *shared, unroll=self.unroll)

    def embedded(self, tokens_BT, position_BT, keys_B):
        """(x_BTM, …): the first block's input, then what every block takes besides, such as rotations."""
        raise NotImplementedError

    def table(self) -> jax.Array:
        """The matrix (V, M) whose product with hidden() is the logits."""
        return self.embed.embedding if self.tied else self.head

    @property
    def cached_heads(self) -> tuple[int, int]:
        """(number, width) of the key/value heads."""
        return self.heads, self.width // self.heads

    def start(self, batch: int, length: int) -> KVCache:
        """An empty cache for `batch` rows of at most `length` tokens."""
        return KVCache.empty(self.depth, batch, length, *self.cached_heads, self.dtype)

    def rules(self):
        """How the parameters are split over a mesh; see jaxmodels.parallel.rules."""
        return transformer_rules(self.heads, self.cached_heads[0])
