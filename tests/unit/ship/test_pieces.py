"""In which pieces logs come back from checkpoints, and until when they are whole after each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.ship.pieces import AT_THE_END, Copied, Piece, Pieces, pieces_of

BEGINS = {"i0001": 100}


def rows(*checkpoints: tuple[int, dict[str, int | None], bool]) -> list[Copied]:
    """Bytes, newest lines, complete; each head is 10 bytes long."""
    return [Copied(10 * number, 10, *checkpoint) for number, checkpoint in enumerate(checkpoints)]


def test_a_checkpoint_is_whole_up_to_the_journals_of_the_one_before() -> None:
    chain = rows((5, {"i0001": 110}, True), (5, {"i0001": 120}, True), (5, {}, True), (5, {"i0001": 150}, True))
    assert [piece.known_ns for piece in pieces_of(chain, BEGINS)] == [100, 110, 120, 120]


def test_what_left_something_out_belongs_to_those_behind_it() -> None:
    chain = rows((5, {"i0001": 110}, True), (9, {"i0001": 150}, False), (9, {"i0001": 160}, False), (1, {}, True))
    assert pieces_of(chain, BEGINS) == (Piece(0, 1, 5, 100), Piece(10, 3, 19, 160))


def test_a_chain_that_ends_in_the_middle_is_all_that_there_is() -> None:
    chain = rows((5, {"i0001": 110}, True), (9, {"i0001": 150}, False))
    assert pieces_of(chain, BEGINS) == (Piece(0, 1, 5, 100), Piece(10, 1, 9, AT_THE_END))


def test_behind_the_last_wanted_byte_nothing_is_waited_for() -> None:
    chain = rows((5, {"i0001": 110}, True), (0, {"i0001": 150}, True), (0, {"i0002": None}, True))
    assert pieces_of(chain, BEGINS) == (Piece(0, 1, 5, 100),)


def test_a_process_that_has_a_successor_is_whole() -> None:
    chain = rows((5, {"i0001": 110}, True), (5, {"i0002": None}, True), (5, {"i0002": None}, True))
    assert [piece.known_ns for piece in pieces_of(chain, BEGINS)] == [100, 110, AT_THE_END]


def test_a_process_that_is_still_to_come_is_not_there() -> None:
    """Even if its clock says that it began before the one that it replaced had ended."""
    chain = rows((5, {"i0001": 500}, True), (5, {"i0001": 900, "i0002": 420}, True), (5, {"i0002": 480}, True))
    assert [piece.known_ns for piece in pieces_of(chain, BEGINS | {"i0002": 400})] == [100, 400, 420]


def test_chains_are_taken_by_time_and_as_many_as_fit() -> None:
    first = (Piece(0, 1, 5, 100), Piece(10, 1, 5, 200), Piece(20, 1, 5, 300))
    second = (Piece(0, 1, 5, 150), Piece(10, 1, 50, 400))
    pieces = Pieces([first, second], [90, 150])
    assert [(chain, piece.at) for chain, piece in pieces.take(11)] == [(0, 0), (0, 10)]
    assert pieces.known_ns == 150
    assert [(chain, piece.at) for chain, piece in pieces.take(11)] == [(1, 0)], "the next one would not fit"
    assert (pieces.known_ns, pieces.needed()) == (150, 50)
    assert [(chain, piece.at) for chain, piece in pieces.take(11)] == [(1, 10), (0, 20)][:1]
    assert pieces.known_ns == 200
    assert [chain for chain, _ in pieces.take(11)] == [0]
    assert pieces.known_ns is None


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 50)), min_size=1, max_size=6), min_size=1, max_size=4),
    st.integers(1, 60),
)  # fmt: skip
def test_each_piece_comes_once_in_the_order_of_its_chain(steps: list[list[tuple[int, int]]], limit: int) -> None:
    chains: list[list[Piece]] = []
    for chain in steps:
        known = 0
        chains.append([Piece(n, 1, size, known := known + step) for n, (step, size) in enumerate(chain)])
    pieces, taken, before = Pieces(chains, [0] * len(chains)), dict[int, list[int]](), -1
    while pieces.known_ns is not None:
        assert pieces.known_ns >= before, "what was whole stays so"
        before = pieces.known_ns
        for chain_number, piece in pieces.take(limit):
            taken.setdefault(chain_number, []).append(piece.at)
    assert [taken[n] for n in range(len(chains))] == [list(range(len(chain))) for chain in chains]
