"""Near-duplicate images among hundreds of thousands, by hash: re-encoded, resized, turned or
mirrored copies.

Two hashes of 256 bits are near when, in one of the eight turns, they differ in at most NEAR_BITS.
The search is exact: 256 bits in 16 bands of 16, and of two hashes that differ in at most 31 bits
some band differs in at most one, so that looking up each band and its 16 one-bit changes finds
every near pair (pigeonhole).
"""

from collections.abc import Callable, Sequence

import numba
import numpy as np

from pipeline.core.images.phash import KEPT

# Copies at JPEG quality 50 or half the size differ in up to 19 bits, X-rays of two patients in 48
# or more.
NEAR_BITS = 24
BANDS = 16
BAND_BITS = 16  # bits of a band


def near_duplicates(hashes: Sequence[str], near: int = NEAR_BITS) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of positions whose hashes (64 hexadecimal digits) are near.

    Of equal hashes, however many, each later one is paired with the first only. near: at most 31.
    """
    if not 0 <= near < 2 * BANDS:
        raise ValueError(f"near={near} is not between 0 and {2 * BANDS - 1}")
    if not len(hashes):
        return []

    # Equal hashes are joined at once, so that the search sees each hash once.
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), -1)
    unique, first, inverse = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    inverse = inverse.reshape(-1)
    pairs = {(int(first[group]), i) for i, group in enumerate(inverse) if first[group] != i}

    # Of different ones, the near pairs.
    for a, b in near_pairs(unique, near):
        pairs.add((int(min(first[a], first[b])), int(max(first[a], first[b]))))
    return sorted(pairs)


def near_pairs(unique: np.ndarray, near: int) -> list[tuple[int, int]]:
    """Pairs of rows of (n, 32) uint8 that are near in some turn."""
    # Shuffled, so that each band has fine and coarse frequencies.
    shuffle = np.random.default_rng(0).permutation(KEPT * KEPT)
    bits = np.unpackbits(unique, axis=1).reshape(-1, KEPT, KEPT)
    keys, words = bands(bits, shuffle)
    views = [bands(turned, shuffle) for turned in turns(bits)]

    # 16 bands, 8 turns, 17 buckets: each hash asks 2,176 times, not once for every other hash.
    pairs = []
    for band in range(BANDS):
        # Buckets: the hashes in the order of this band's key, and where each key's begin.
        order = np.argsort(keys[band], kind="stable")
        starts = np.searchsorted(keys[band], np.arange((1 << BAND_BITS) + 1), sorter=order)
        for turned_keys, turned in views:
            # Sorted, since neighbours then ask for the same buckets: half the time.
            asking = np.argsort(turned_keys[band], kind="stable")
            pairs += search(asking, turned_keys[band], turned, order, words[order], starts, near)
    return pairs


def bands(bits: np.ndarray, shuffle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(BANDS, n) uint16 keys and (n, 4) uint64 words of (n, KEPT, KEPT) bits."""
    # The same 32 bytes twice: as 16 keys to look up, and as 4 words to count differences in.
    shuffled = bits.reshape(len(bits), -1)[:, shuffle]
    packed = np.ascontiguousarray(np.packbits(shuffled, axis=1))
    return np.ascontiguousarray(packed.view(np.uint16).T), packed.view(np.uint64)


def turns(bits: np.ndarray):
    """The bits of an image's eight turns, (n, KEPT, KEPT) uint8 each.

    Mirrored, odd frequencies change sign; transposed, they change places.
    """
    odd = np.arange(KEPT) % 2
    for across in (0, odd[None, :]):
        for down in (0, odd[:, None]):
            mirrored = bits ^ across ^ down
            yield mirrored.astype(np.uint8)
            yield mirrored.astype(np.uint8).swapaxes(1, 2)


def compiled(function: Callable) -> Callable:
    """The function compiled, kept for the next process where a folder can be written to: numba
    takes it for an error where neither the code's nor the user's own can."""
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:
        return numba.njit(function)


@compiled
def ones(word):
    """The number of bits set; compiled to one instruction."""
    pairs = np.uint64(0x3333333333333333)
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & pairs) + ((word >> np.uint64(2)) & pairs)
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@compiled
def far(first, second, near):
    """True when two hashes differ in more than `near` bits."""
    different = np.uint64(0)
    for word in range(4):
        different += ones(first[word] ^ second[word])
        if different > near:
            return True
    return False


@compiled
def search(asking, turned_keys, turned, order, ordered, starts, near):
    """Pairs (i, j), i < j, where hash i turned is near hash j, by one band.

    ordered: the hashes in `order`; starts: where each key's begin among them.
    """
    pairs = []
    for i in asking:
        # The bucket of the key itself (-1), then of its 16 one-bit changes.
        for flip in range(-1, 16):
            key = np.int64(turned_keys[i])
            if flip >= 0:
                key ^= np.int64(1) << flip
            for place in range(starts[key], starts[key + 1]):
                # Each pair once: its first hash is the one that is turned.
                if order[place] > i and not far(turned[i], ordered[place], near):
                    pairs.append((i, order[place]))
    return pairs
