//! What looks at the buffer, one after the other, tell of it that a single one does not: that the server has lost its data,
//! and that its books do not agree with each other, which every script leaves in agreement.

use super::books::Standing;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Vigil {
    last: Option<Standing>,
    /// What was made of that already.
    known: u64,
    /// To be mended.
    pub(super) disagrees: bool,
}

impl Vigil {
    /// Returns how many messages waited when it was seen last, if they are all gone.
    pub(super) fn sees(&mut self, standing: Standing) -> Option<u64> {
        let difference = standing.unsynced.abs_diff(standing.queued);
        // Nothing may come of mending it (a queue that is none): it is not tried again before it changes.
        self.disagrees |= difference > 0 && difference != self.known;
        self.known = difference;
        let before = self.last.replace(standing.clone())?;
        (before.since != standing.since).then_some(before.unsynced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_is_gone_and_books_that_disagree() {
        let mut vigil = Vigil::default();
        let standing = |unsynced, queued, since: &str| Standing { unsynced, queued, since: since.to_owned() };
        let mut sees = |unsynced, queued, since| {
            let gone = vigil.sees(standing(unsynced, queued, since));
            (gone, std::mem::take(&mut vigil.disagrees))
        };
        assert_eq!(sees(5, 5, "1"), (None, false));
        assert_eq!(sees(9, 7, "1"), (None, true));
        assert_eq!(sees(9, 7, "1"), (None, false), "it was tried");
        assert_eq!(sees(9, 9, "1"), (None, false));
        assert_eq!(sees(7, 9, "1"), (None, true));
        assert_eq!(sees(0, 0, "2"), (Some(7), false));
        assert_eq!(sees(3, 3, "2"), (None, false));
    }
}
