//! The numbers that are published, with their names.

/// Whether a number only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grows {
    /// It counts since the beginning.
    Counter,
    /// It is what it is now.
    Gauge,
}

impl Grows {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Grows::Counter => "counter",
            Grows::Gauge => "gauge",
        }
    }
}

/// Group, name and kind of a number.
pub(crate) type Name = (&'static str, &'static str, Grows);

/// Collects numbers. Their names stay the same from one time to the next, as a rule, and are
/// published only when they do not.
#[derive(Debug, Default)]
pub struct Values {
    names: Vec<Name>,
    values: Vec<u64>,
    /// How many of `names` are as they were the last time.
    at: usize,
    changed: bool,
}

impl Values {
    /// What only grows.
    #[inline]
    pub fn counter(&mut self, group: &'static str, name: &'static str, value: u64) {
        self.push(group, name, Grows::Counter, value);
    }

    /// What is so now.
    #[inline]
    pub fn gauge(&mut self, group: &'static str, name: &'static str, value: u64) {
        self.push(group, name, Grows::Gauge, value);
    }

    #[inline]
    fn push(&mut self, group: &'static str, name: &'static str, grows: Grows, value: u64) {
        let entry = (group, name, grows);
        // The same text is at the same place, nearly always.
        let same = self.names.get(self.at).is_some_and(|old| {
            core::ptr::eq(old.1, name) && core::ptr::eq(old.0, group) && old.2 == grows
                || *old == entry
        });
        if !same {
            self.names.truncate(self.at);
            self.names.push(entry);
            self.changed = true;
        }
        self.at += 1;
        self.values.push(value);
    }

    /// Forgets the numbers, keeps their names to compare.
    pub(crate) fn begin(&mut self) {
        self.values.clear();
        self.at = 0;
        self.changed = false;
    }

    /// Ends the collection: the numbers, and the names if they are others than before.
    pub(crate) fn end(&mut self) -> (&[u64], Option<&[Name]>) {
        if self.names.len() > self.at {
            self.names.truncate(self.at);
            self.changed = true;
        }
        (&self.values, self.changed.then_some(&self.names[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_when_they_change() {
        let mut values = Values::default();
        let mut collect = |names: &[&'static str]| {
            values.begin();
            for (at, name) in names.iter().enumerate() {
                values.counter("g", name, at as u64);
            }
            let (numbers, names) = values.end();
            (numbers.len(), names.map(<[_]>::len))
        };
        assert_eq!(collect(&["a", "b"]), (2, Some(2)));
        assert_eq!(collect(&["a", "b"]), (2, None));
        assert_eq!(collect(&["a"]), (1, Some(1)));
        assert_eq!(collect(&["b"]), (1, Some(1)));
        assert_eq!(collect(&["b", "c", "d"]), (3, Some(3)));
        assert_eq!(collect(&["b", "c", "d"]), (3, None));
    }
}
