"""Noise: known answers, addresses instead of positions, two implementations bit for bit, and statistics."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch

from tests.support import reference
from tests.support.toys import mixed
from zocore.directions.laws import Direction, Gaussian, LowRank, Rademacher
from zocore.noise import addressed, kernels
from zocore.noise.addressed import Address, Key, Purpose, address
from zocore.weights.leaf import TILE, Leaf

RANGES = [(0, 1), (0, 128), (0, 1000), (3, 7), (127, 2), (128, 513), (1021, 4099), (4 * 2**20 + 3, 777)]


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, words) -> None:
    """Random123's own test vectors hold for the engine and for the independent reference."""
    block = torch.tensor([counter[0]])
    assert tuple(int(word) for word in addressed.philox(block, Address(counter[1:], key))) == words
    assert reference.philox(counter, key) == words


def test_signs_and_normals_equal_an_independent_reading_of_the_layout() -> None:
    """Element i of any address is what plain Python integers and math functions say it is."""
    where = {"seed": 2**40 + 17, "step": 9, "direction": 5}
    for leaf, indices in ((0, range(9)), (2**24 - 1, range(120, 140))):
        signs = addressed.signs(address(Key(**where), leaf, Purpose.ROW_SIGN), indices.start, len(indices))
        normals = addressed.normals(address(Key(**where), leaf, Purpose.NORMAL), indices.start, len(indices))
        assert signs.tolist() == [reference.sign(i, **where, leaf=leaf, purpose=2) for i in indices]
        # 1.7e-6 is the float32 error of Box-Muller measured over 4 million draws
        assert normals.tolist() == pytest.approx([reference.normal(i, **where, leaf=leaf) for i in indices], abs=2e-6)


@pytest.mark.parametrize("signs", [False, True], ids=["normals", "signs"])
@pytest.mark.parametrize(("start", "count"), RANGES)
def test_compiled_noise_equals_plain_torch_bit_for_bit(signs: bool, start: int, count: int) -> None:
    """The kernel is a copy of the definition for any start and length, multiplied and added in one rounding
    each.
    """
    where = address(Key(11, 2**32 - 1, 3), 77, Purpose.SIGN if signs else Purpose.NORMAL)
    draw = addressed.signs if signs else addressed.normals
    base = torch.linspace(-2, 2, count).unsqueeze(1)
    out = torch.empty_like(base)
    kernels.displace(out, base, where, signs, 0.3, start)
    expected = base + draw(where, start, count).unsqueeze(1) * torch.tensor(0.3)
    assert torch.equal(out, expected)
    kernels.displace(base, base, where, signs, 0.3, start)  # and in place
    assert torch.equal(base, expected)


@pytest.mark.parametrize("signs", [False, True], ids=["normals", "signs"])
@pytest.mark.parametrize("width", [1, 3, 128, 130])
def test_rows_of_a_matrix_equal_the_whole_bit_for_bit(signs: bool, width: int) -> None:
    """Any rows, in any order and repeated, are the rows of the whole matrix, compiled and plain."""
    where = address(Key(0, 4), 3, Purpose.SIGN if signs else Purpose.NORMAL)
    draw = addressed.signs if signs else addressed.normals
    whole = draw(where, 0, 50 * width).view(50, width)
    rows = torch.tensor([49, 0, 7, 7, 31, 8])
    assert torch.equal(draw(where, rows, width), whole[rows])
    out = torch.zeros(len(rows), width)
    kernels.displace(out, out, where, signs, 1.0, rows)
    assert torch.equal(out, whole[rows])


def test_any_tile_in_any_order_equals_the_whole() -> None:
    """Ranges cut anywhere and drawn backwards give the same bits, past the tile length of the plain version
    too.
    """
    for purpose, draw, per_block in ((Purpose.NORMAL, addressed.normals, 4), (Purpose.SIGN, addressed.signs, 128)):
        where = address(Key(5, 6), 7, purpose)
        count = addressed.TILE_BLOCKS * per_block + 1003 if per_block == 4 else 70001
        whole = draw(where, 0, count)
        cuts = [0, 1, 5, 131, 4097, count // 2 + 3, count]
        pieces = [draw(where, a, b - a) for a, b in reversed(list(pairwise(cuts)))]
        assert torch.equal(torch.cat(pieces[::-1]), whole)
    words = addressed.uniform_words(where, 0, 100)
    assert torch.equal(addressed.uniform_words(where, 37, 20), words[37:57])


def test_leaves_larger_than_a_tile_have_the_noise_of_the_whole() -> None:
    """Tiles of a leaf, visited in reverse, rebuild the z that one call gives."""
    leaf = Leaf("w", 4, torch.zeros(3 * TILE // 1000, 1000), ())
    whole = Direction(Key(1, 2), Rademacher()).tensor(leaf)
    tiles = list(leaf.tiles())
    assert len(tiles) > 1
    again = torch.zeros_like(whole)
    for tile in reversed(tiles):
        Direction(Key(1, 2), Rademacher()).displace(again[tile], again[tile], leaf, 1.0, tile.start)
    assert torch.equal(again, whole)


def test_normals_have_the_moments_and_the_distribution_of_normals() -> None:
    """Mean, variance, skewness and kurtosis lie within 5 standard errors, and the distribution within K-S's
    0.1 %.
    """
    n = 200_000
    z = addressed.normals(address(Key(3, 1), 0, Purpose.NORMAL), 0, n).double()
    errors = {1: 1.0, 2: 2**0.5, 3: 15**0.5, 4: 96**0.5}  # standard deviations of z, z^2, z^3, z^4
    for power, deviation in errors.items():
        expected = {1: 0, 2: 1, 3: 0, 4: 3}[power]
        assert abs(float((z**power).mean()) - expected) < 5 * deviation / n**0.5, power
    distance = reference.kolmogorov_smirnov(z.numpy(), reference.phi)
    assert distance < 1.95 / n**0.5  # exceeded with chance 0.001 by true normals
    assert float(z.abs().max()) < 5.8


def test_signs_are_fair_and_only_plus_or_minus_one() -> None:
    """The mean is within 5 standard errors of 0, also over each of the 32 bit positions."""
    n = 320_000
    z = addressed.signs(address(Key(3, 1), 0, Purpose.SIGN), 0, n)
    assert set(z.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(z.mean())) < 5 / n**0.5
    assert float(z.view(-1, 32).mean(0).abs().max()) < 5 / (n / 32) ** 0.5


@pytest.mark.parametrize("purpose", [Purpose.NORMAL, Purpose.SIGN])
def test_no_two_addresses_are_correlated(purpose: Purpose) -> None:
    """Draws that differ in seed, step, direction, leaf or position correlate as independent ones: below 5 /
    sqrt n.
    """
    n = 40_000
    draw = addressed.signs if purpose == Purpose.SIGN else addressed.normals
    keys = [Key(0, 0), Key(1, 0), Key(2**32, 0), Key(0, 1), Key(0, 0, 1), Key(1, 1), Key(2**63, 7, 7)]
    vectors = [draw(address(key, leaf, purpose), 0, n) for key in keys for leaf in (0, 1, 2**23)]
    vectors += [draw(address(Key(0, 0), 0, purpose), lag, n) for lag in (1, 4, 32, 128)]
    stacked = torch.stack(vectors).double()
    correlation = (stacked @ stacked.T / n).fill_diagonal_(0)
    assert float(correlation.abs().max()) < 5 / n**0.5


def test_purposes_never_share_an_address() -> None:
    """Signs for different purposes at one key and leaf are uncorrelated, and no two purposes have equal
    words.
    """
    n = 40_000
    signs = torch.stack([addressed.signs(address(Key(0, 0), 0, purpose), 0, n) for purpose in Purpose])
    assert float((signs @ signs.T / n).fill_diagonal_(0).abs().max()) < 5 / n**0.5


def test_leaves_of_one_shape_move_along_unrelated_directions() -> None:
    """Same-shape tensors share no noise, unlike in published code that seeds once per tensor."""
    leaves = [Leaf(str(i), i, torch.zeros(64, 64), ()) for i in range(6)]
    for law in (Gaussian(), Rademacher(), LowRank(4)):
        z = [Direction(Key(0, 3), law).tensor(leaf).flatten() for leaf in leaves]
        # thin factors have fewer degrees of freedom
        bound = 5 / 64 if not isinstance(law, LowRank) else 5 / 64 * 3
        assert max(abs(float(a @ b)) / 64**2 for a, b in combinations(z, 2)) < bound


def test_rows_and_columns_of_signs_are_uncorrelated_and_of_full_rank() -> None:
    """No checkerboard: sign matrices have full rank, and no two rows or columns are equal or opposite."""
    for step in range(5):
        for shape in ((64, 64), (32, 200), (200, 32), (128, 128)):
            signs = addressed.signs(address(Key(0, step), 2, Purpose.ROW_SIGN), 0, shape[0] * shape[1]).view(shape)
            assert np.linalg.matrix_rank(signs.numpy()) == min(shape)
            for matrix in (signs, signs.T):
                products = (matrix @ matrix.T / matrix.shape[1]).fill_diagonal_(0)
                assert float(products.abs().max()) < 6 / matrix.shape[1] ** 0.5


def test_every_seed_and_step_gives_another_sign_vector() -> None:
    """1,000 seeds give 1,000 distinct sign vectors; the released GRZO hash gives two."""
    for where in (
        lambda i: Key(i, 0),
        lambda i: Key(0, i),
        lambda i: Key(0, 0, i),
        lambda i: Key(i << 32, 0),
    ):
        vectors = {tuple(addressed.signs(address(where(i), 0, Purpose.ROW_SIGN), 0, 64).tolist()) for i in range(1000)}
        assert len(vectors) == 1000


def test_seed_zero_is_a_seed() -> None:
    """Seed 0 gives the same noise each time and other noise than seed 1; nothing is drawn in its place."""
    leaf = Leaf("w", 0, torch.zeros(8, 8), ())
    first, again, other = (Direction(Key(seed, 0), Gaussian()).tensor(leaf) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_parts_of_an_address_out_of_range_are_refused() -> None:
    """An address that does not fit its bits raises ValueError instead of meeting another one."""
    for part, limit in (("seed", 2**64), ("step", 2**32), ("direction", 2**32)):
        key = replace(Key(0, 0, 0), **{part: limit - 1})
        assert getattr(key, part) == limit - 1
        for value in (-1, limit):
            with pytest.raises(ValueError, match=part):
                replace(key, **{part: value})
    for leaf in (-1, 2**24):
        with pytest.raises(ValueError, match="leaf id"):
            address(Key(0, 0), leaf, Purpose.NORMAL)


def test_noise_does_not_depend_on_the_dtype_or_the_order_of_the_model() -> None:
    """z of a float64 leaf is the float32 z, and drawing leaves in another order changes nothing."""
    toy = mixed()
    direction = Direction(Key(8, 8), Gaussian())
    forwards = {leaf.id: direction.tensor(leaf) for leaf in toy.leaves}
    backwards = {leaf.id: direction.tensor(leaf) for leaf in reversed(toy.leaves)}
    for leaf in toy.leaves:
        single = replace(leaf, tensor=leaf.tensor.float())
        assert torch.equal(forwards[leaf.id], backwards[leaf.id])
        assert torch.equal(forwards[leaf.id], direction.tensor(single).double())


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    """Noise ignores torch.manual_seed and leaves the global generator where it was."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = addressed.normals(address(Key(0, 0), 0, Purpose.NORMAL), 0, 100)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, addressed.normals(address(Key(0, 0), 0, Purpose.NORMAL), 0, 100))


def test_the_order_of_the_data_is_a_permutation_of_its_own() -> None:
    """Each epoch and seed visits every example once in another order."""
    orders = {tuple(addressed.permutation(30, seed, epoch)) for seed in (0, 1) for epoch in (0, 1, 2)}
    assert len(orders) == 6
    assert all(sorted(order) == list(range(30)) for order in orders)


def test_compiled_words_are_the_plain_ones() -> None:
    """Rounding draws the same words compiled as plain, wherever a range starts."""
    where = address(Key(5, 6), 7, Purpose.ROUNDING)
    for start, count in ((0, 1), (3, 10), (4, 4096), (1001, 777)):
        assert torch.equal(kernels.random_words(where, start, count), addressed.uniform_words(where, start, count))
