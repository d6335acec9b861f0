"""BERT: a bidirectional transformer encoder, with heads for masked and supervised tasks (arXiv:1810.04805).

RoBERTa (arXiv:1907.11692) is the same model with other fields: its positions begin at 2, and it has one type
of token. Differs from the paper: the weights of attention have no dropout; there is no next-sentence
head.
Dimensions: B batch, T tokens, H heads, D width of a head, M width, F hidden, V vocabulary, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.attention import attention
from jaxmodels.layers.dropout import dropout, fold
from jaxmodels.layers.kv_cache import positions
from jaxmodels.layers.model import Model
from jaxmodels.layers.stack import Remat, rematerialised, stack
from jaxmodels.layers.transformer_rules import transformer_rules

small = nn.initializers.normal(0.02)


def gelu(x: jax.Array) -> jax.Array:
    """GELU by the error function: x times the normal distribution function at x (arXiv:1606.08415)."""
    return nn.gelu(x, approximate=False)


class Block(Model):
    """Attention, then MLP; each is added to its input, and the sum is normalised."""

    heads: int
    hidden_width: int
    activation: Callable[[jax.Array], jax.Array] = gelu
    dropout: float = 0.0
    epsilon: float = 1e-12
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x_BTM, keys_B, _, segments_BT):
        """(x, None) after this block."""
        M = x_BTM.shape[-1]
        dense = partial(nn.Dense, kernel_init=small, dtype=self.dtype)
        norm = partial(nn.LayerNorm, epsilon=self.epsilon, dtype=self.dtype)

        q, k, v = (
            dense(M, name=name)(x_BTM).reshape(*x_BTM.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        segments = None if segments_BT is None else (segments_BT, segments_BT)
        y_BTM = attention(q, k, v, segments=segments).reshape(x_BTM.shape)
        y_BTM = dropout(dense(M, name="out")(y_BTM), self.dropout, fold(keys_B, 0))
        x_BTM = norm(name="norm_attention")(x_BTM + y_BTM)

        y_BTF = self.activation(dense(self.hidden_width, name="up")(x_BTM))
        y_BTM = dropout(dense(M, name="down")(y_BTF), self.dropout, fold(keys_B, 1))
        return norm(name="norm_mlp")(x_BTM + y_BTM), None


class Bert(Model):
    """Maps tokens to one vector for each, BTM."""

    vocabulary: int
    length: int  # most tokens of a text
    width: int
    depth: int
    heads: int
    hidden_width: int
    types: int = 2  # of tokens, such as question and answer; 0 is no type embedding
    offset: int = 0  # position of a text's first token; RoBERTa's is 2
    padding: int | None = None  # the padding token, where segments are not given
    activation: Callable[[jax.Array], jax.Array] = gelu
    epsilon: float = 1e-12  # of the normalisations
    dropout: float = 0.0
    remat: Remat = "none"  # what the backward pass rematerializes
    unroll: int = 1  # blocks in one iteration of the scan
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    def setup(self):
        """Creates the submodules and parameters."""
        if self.width % self.heads:
            raise ValueError(
                f"Bert: got width {self.width} and {self.heads} heads; expected a multiple of the number of "
                "heads. Change one."
            )
        self.embed = nn.Embed(self.vocabulary, self.width, embedding_init=small, dtype=self.dtype)
        self.position = self.param("position", small, (self.length + self.offset, self.width))
        if self.types:
            self.type = self.param("type", small, (self.types, self.width))
        self.norm = nn.LayerNorm(epsilon=self.epsilon, dtype=self.dtype)
        block = rematerialised(Block, self.remat)
        self.blocks = block(
            self.heads, self.hidden_width, self.activation, self.dropout, self.epsilon, self.dtype
        )

    def __call__(self, tokens_BT, keys_B=None, segments_BT=None, types_BT=None):
        """x_BTM; keys_B: one random key per example while training.

        segments_BT: the text of each token, where several are packed into a row, 0 for padding; a token
        attends to its own text only. types_BT: 0 where absent.
        """
        T = tokens_BT.shape[1]
        if self.length < T:
            raise ValueError(
                f"Bert: got {T} tokens; expected at most {self.length}. Shorten the texts or make the model "
                "longer."
            )
        if types_BT is not None and not self.types:
            raise ValueError(
                "Bert: got types of tokens for a model with types=0; expected none. Leave them out or set "
                "types."
            )
        if segments_BT is None and self.padding is not None:
            segments_BT = (tokens_BT != self.padding).astype(jnp.int32)
        x_BTM = self.embed(tokens_BT) + self.position[self.offset + positions(tokens_BT, None, segments_BT)]
        if self.types:
            x_BTM += self.type[jnp.zeros_like(tokens_BT) if types_BT is None else types_BT]
        if self.dtype:
            x_BTM = x_BTM.astype(self.dtype)
        x_BTM = dropout(self.norm(x_BTM), self.dropout, fold(keys_B, 2**16))
        return stack(self.blocks, self.depth, x_BTM, keys_B, None, segments_BT, unroll=self.unroll)[0]

    def table(self) -> jax.Array:
        """The matrix (V, M) that embeds tokens."""
        return self.embed.embedding

    def rules(self):
        """How the parameters are split over a mesh; see jaxmodels.parallel.rules."""
        return transformer_rules(self.heads)


class MaskedLM(Model):
    """Maps tokens to logits of the original token at each position, BTV."""

    encoder: Bert

    def setup(self):
        """Creates the submodules and parameters."""
        encoder = self.encoder
        self.dense = nn.Dense(encoder.width, kernel_init=small, dtype=encoder.dtype)
        self.norm = nn.LayerNorm(epsilon=encoder.epsilon, dtype=encoder.dtype)
        self.bias = self.param("bias", nn.initializers.zeros, (encoder.vocabulary,))

    def __call__(self, tokens_BT, keys_B=None, segments_BT=None, types_BT=None):
        """Logits; arguments as of the encoder."""
        x_BTN = self.hidden(tokens_BT, keys_B, segments_BT, types_BT)
        return x_BTN @ self.table().astype(x_BTN.dtype).T

    def hidden(self, tokens_BT, keys_B=None, segments_BT=None, types_BT=None):
        """The hidden states whose products with table() are the logits: M values, and a 1 for the bias."""
        x_BTM = self.encoder(tokens_BT, keys_B, segments_BT, types_BT)
        x_BTM = self.norm(self.encoder.activation(self.dense(x_BTM)))
        return jnp.concatenate([x_BTM, jnp.ones_like(x_BTM[..., :1])], -1)

    def table(self) -> jax.Array:
        """The matrix (V, M + 1) whose product with hidden() is the logits: embeddings, then biases."""
        table_VM = self.encoder.table()
        return jnp.concatenate([table_VM, self.bias[:, None].astype(table_VM.dtype)], -1)


class Pooled(Model):
    """Maps tokens to one vector per text, BM: the first token's, through a dense layer and tanh."""

    encoder: Bert

    @nn.compact
    def __call__(self, tokens_BT, keys_B=None, segments_BT=None, types_BT=None):
        """Arguments as of the encoder."""
        x_BTM = self.encoder(tokens_BT, keys_B, segments_BT, types_BT)
        return pool(self.encoder, x_BTM[:, 0])


def pool(encoder: Bert, x_BM: jax.Array) -> jax.Array:
    """The pooler; called in the module that has its parameters."""
    return jnp.tanh(nn.Dense(encoder.width, kernel_init=small, dtype=encoder.dtype, name="pooler")(x_BM))


class TextClassifier(Model):
    """Maps tokens to logits of a text's classes, BK, from its first token."""

    encoder: Bert
    classes: int
    dropout: float = 0.0  # before the last layer
    dropout_pooler: float = 0.0  # before the pooler too, as in RoBERTa

    @nn.compact
    def __call__(self, tokens_BT, keys_B=None, segments_BT=None, types_BT=None):
        """Logits; arguments as of the encoder."""
        x_BTM = self.encoder(tokens_BT, keys_B, segments_BT, types_BT)
        x_BM = pool(self.encoder, dropout(x_BTM[:, 0], self.dropout_pooler, fold(keys_B, 2**17)))
        x_BM = dropout(x_BM, self.dropout, fold(keys_B, 2**17 + 1))
        return nn.Dense(self.classes, kernel_init=small, dtype=self.encoder.dtype, name="head")(x_BM)


class TokenClassifier(Model):
    """Maps tokens to logits of each token's classes, BTK."""

    encoder: Bert
    classes: int
    dropout: float = 0.0  # before the last layer

    @nn.compact
    def __call__(self, tokens_BT, keys_B=None, segments_BT=None, types_BT=None):
        """Logits; arguments as of the encoder."""
        x_BTM = self.encoder(tokens_BT, keys_B, segments_BT, types_BT)
        x_BTM = dropout(x_BTM, self.dropout, fold(keys_B, 2**17))
        return nn.Dense(self.classes, kernel_init=small, dtype=self.encoder.dtype, name="head")(x_BTM)


class SpanModel(Model):
    """Maps tokens to logits of being the first and of being the last token of the answer, BT2."""

    encoder: Bert

    @property
    def types(self) -> int:
        """The encoder's number of token types."""
        return self.encoder.types

    @nn.compact
    def __call__(self, tokens_BT, keys_B=None, segments_BT=None, types_BT=None):
        """Logits; arguments as of the encoder."""
        x_BTM = self.encoder(tokens_BT, keys_B, segments_BT, types_BT)
        return nn.Dense(2, kernel_init=small, dtype=self.encoder.dtype, name="head")(x_BTM)


class Embedder(Model):
    """Maps tokens to a unit vector per text, BM: the mean over its tokens, normalised (arXiv:1908.10084)."""

    encoder: Bert

    @nn.compact
    def __call__(self, tokens_BT, keys_B=None, segments_BT=None, types_BT=None):
        """Arguments as of the encoder; one text a row."""
        if segments_BT is None and self.encoder.padding is not None:
            segments_BT = (tokens_BT != self.encoder.padding).astype(jnp.int32)
        x_BTM = self.encoder(tokens_BT, keys_B, segments_BT, types_BT)
        real_BT1 = (jnp.ones_like(tokens_BT) if segments_BT is None else segments_BT > 0)[..., None]
        # Normalisation cancels the mean's divisor. The sum is in float32, as 512 tokens are many for
        # bfloat16.
        sum_BM = jnp.where(real_BT1, x_BTM, 0).astype(jnp.float32).sum(1)
        return sum_BM / jnp.maximum(jnp.linalg.norm(sum_BM, axis=-1, keepdims=True), 1e-12)


bert = partial(Bert, vocabulary=30522, length=512)
bert_base = partial(bert, width=768, depth=12, heads=12, hidden_width=3072)
bert_large = partial(bert, width=1024, depth=24, heads=16, hidden_width=4096)

roberta = partial(Bert, vocabulary=50265, length=512, types=1, offset=2, epsilon=1e-5)
roberta_base = partial(roberta, width=768, depth=12, heads=12, hidden_width=3072)
roberta_large = partial(roberta, width=1024, depth=24, heads=16, hidden_width=4096)
