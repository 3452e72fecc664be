//! What to make of a place where a batch should be: a table with a reason per row, matched exhaustively.
//!
//! The three inputs that matter are whether the bytes could be read at all, whether they verify, and whether anything
//! shows that a sync which covered them returned. Everything that a power cut can leave falls in the rows `End` and
//! `Torn`; everything else is somebody's acknowledged data.

use crate::mutant::{Rule, removed};

/// What was found at a place where the batch of sequence `q` should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Every byte that the judgement needs could be read: those of the batch, and, if it is bad, those behind it.
    pub(crate) readable: bool,
    /// The batch verifies: header, chain, frame headers, payloads.
    pub(crate) valid: bool,
    /// A valid header of the same segment names a durable-through of `q` or higher, or the place lies before the end
    /// that the successor's opening recorded.
    pub(crate) witnessed: bool,
    /// From here to the end of the file there is nothing but zeros.
    pub(crate) blank: bool,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It belongs to the journal.
    Keep,
    /// Somebody was told that it is durable, and it is not there.
    Damaged,
    /// The journal ends here.
    End,
    /// The journal ends here, and what follows is cut and reported.
    Torn,
    /// Nothing is decided: the system does not give us the bytes. Nothing may be written.
    Unreadable,
}

/// ```text
/// readable  valid  witnessed  blank   decision    because
/// no        any    any        any     Unreadable  a crash never makes a read fail, so it is never a tear
/// yes       yes    any        any     Keep        it verifies
/// yes       no     yes        any     Damaged     a sync that covered it returned: somebody was told
/// yes       no     no         yes     End         the zeroed rest of the file was never written
/// yes       no     no         no      Torn        nothing shows that its sync returned; cut, and say so
/// ```
pub(crate) fn decide(found: Found) -> Decision {
    match (found.readable, found.valid, found.witnessed, found.blank) {
        (false, _, _, _) => Decision::Unreadable,
        (true, true, _, _) => Decision::Keep,
        (true, false, true, _) if removed(Rule::WitnessedIsDamage) => Decision::Torn,
        (true, false, true, _) => Decision::Damaged,
        (true, false, false, true) if removed(Rule::BlankIsTheEnd) => Decision::Torn,
        (true, false, false, true) => Decision::End,
        (true, false, false, false) => Decision::Torn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(bits: u8) -> Found {
        Found {
            readable: bits & 1 != 0,
            valid: bits & 2 != 0,
            witnessed: bits & 4 != 0,
            blank: bits & 8 != 0,
        }
    }

    /// Each of the 16 inputs, against the table written out once more as rules.
    #[test]
    fn every_row_of_the_table_holds() {
        for bits in 0..16 {
            let f = found(bits);
            let expected = if !f.readable {
                Decision::Unreadable
            } else if f.valid {
                Decision::Keep
            } else if f.witnessed {
                Decision::Damaged
            } else if f.blank {
                Decision::End
            } else {
                Decision::Torn
            };
            assert_eq!(decide(f), expected, "{f:?}");
        }
    }

    #[test]
    fn a_read_error_is_never_a_tear_and_never_an_end() {
        for bits in 0..16 {
            let f = Found {
                readable: false,
                ..found(bits)
            };
            assert_eq!(decide(f), Decision::Unreadable, "{f:?}");
        }
    }

    #[test]
    fn witnessed_bytes_are_never_cut() {
        for bits in 0..16 {
            let f = Found {
                witnessed: true,
                ..found(bits)
            };
            assert!(!matches!(decide(f), Decision::Torn | Decision::End), "{f:?}");
        }
    }
}
