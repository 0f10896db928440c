//! Holds the tests that span crates; see `tests/`, and `fixtures/` and `peers/` beside it.
