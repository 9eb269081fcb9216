"""Directions whose signs are bits, without training: PCA-sign, ITQ, LSH, and a vector's own numbers. Plain NumPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embedkit.errors import ConfigError

if TYPE_CHECKING:
    from typing import TypeAlias

    import numpy.typing as npt

    from embedkit.types import FloatArray

    Doubles: TypeAlias = npt.NDArray[np.float64]

__all__ = ["METHODS", "directions", "itq_rotation", "principal_axes"]

METHODS = ("itq", "lsh", "pca", "sign")
_FLAT = 1e-4  # a deviation this small beside the largest is rounding
_ROUNDS = 50  # of ITQ, as in section 3 of its paper
_STEPS = 2.0**16  # fitted numbers are whole multiples of 1 / 65,536


def directions(centred: FloatArray, bits: int, method: str, *, seed: int = 0) -> FloatArray:
    """``(bits, channels)``, whose products with vectors less their mean ``(n, channels)`` have the bits as signs.

    ``pca``: the axes of largest variance. ``itq``: these, turned so that the signs lose least (Gong & Lazebnik 2011).
    ``lsh``: random ones (Charikar 2002, section 3). ``sign``: the channels themselves. Raises ConfigError.

    What is fitted is computed in float64 and rounded: another number of threads adds up in another order, and the
    fingerprint of an encoder is of these very numbers.
    """
    channels = centred.shape[1]
    if method == "sign":
        if bits != channels:
            raise ConfigError(f"hash=sign gives a bit for each of {channels} numbers, not bits={bits}; take itq or pca")
        return np.eye(channels, dtype=np.float32)
    if method == "lsh":
        return np.random.default_rng(seed).standard_normal((bits, channels)).astype(np.float32)
    axes = principal_axes(centred, bits)
    if method == "itq":
        axes = itq_rotation(centred @ axes.T, seed=seed).T @ axes
    return (np.rint(axes * _STEPS) / _STEPS).astype(np.float32)


def principal_axes(centred: FloatArray, count: int) -> Doubles:
    """The orthonormal directions of largest variance, ``(count, channels)``. Raises ConfigError if there are fewer."""
    values = centred.astype(np.float64)
    wide = len(values) < values.shape[1]
    squares, vectors = np.linalg.eigh(values @ values.T if wide else values.T @ values)  # sooner than a singular one
    deviations = np.sqrt(np.maximum(squares[::-1], 0))
    span = int(np.count_nonzero(deviations > _FLAT * deviations[0])) if len(deviations) else 0
    if span < count:
        raise ConfigError(
            f"These pictures span only {span} dimensions, not {count}; give more varied ones, or take fewer bits"
        )
    axes = vectors[:, ::-1][:, :count].T
    if wide:
        axes = (axes @ values) / deviations[:count, None]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1, keepdims=True), axis=1)
    turned: Doubles = axes * np.sign(largest)  # an axis has two directions, of which one is taken
    return turned


def itq_rotation(projected: FloatArray | Doubles, *, seed: int = 0, rounds: int = _ROUNDS) -> Doubles:
    """The rotation R of ITQ for ``(n, bits)`` V: from a random one on, ‖sign(VR) - VR‖² falls (eq. 2, section 2.2).

    Alternately B = sign(VR), and R = Ŝ Sᵀ out of the singular value decomposition BᵀV = S Ω Ŝᵀ.
    """
    bits = projected.shape[1]
    values = projected.astype(np.float64)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((bits, bits)))
    for _ in range(rounds):
        signs = np.where(values @ rotation > 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(signs.T @ values)
        rotation = (left @ right).T
    turned: Doubles = rotation
    return turned
