//! What IGMPv3 and MLDv2 have in common: the groups that this host listens to, and when routers
//! are told (RFC 3376 §5, RFC 3810 §6). [`crate::igmp`] and [`crate::mld`] read and write the
//! messages.
//!
//! Nothing here is on the path of a packet but [`Listening::has`].

use core::time::Duration;

use millrace_frames::Instant;
use millrace_wire::igmp::RecordKind;

use crate::address::Word;
use crate::hash::Keys;

/// Bounds and timers of multicast.
#[derive(Clone, Debug)]
pub struct MulticastConfig {
    /// Most groups of each family that the stack listens to.
    pub groups: u16,
    /// Most groups that one socket listens to.
    pub groups_per_socket: u16,
    /// Most sources in a socket's filter of one group.
    pub sources: u16,
    /// How often a change is told, until a router says otherwise (RFC 3376 §8.1), 1 to 7.
    pub robustness: u8,
    /// A change is told again within this time (RFC 3376 §8.11, RFC 3810 §9.11).
    pub report_interval: Duration,
    /// The same for routers of older versions (RFC 2236 §8.10).
    pub old_report_interval: Duration,
}

impl Default for MulticastConfig {
    fn default() -> Self {
        MulticastConfig {
            groups: 64,
            groups_per_socket: 20,
            sources: 64,
            robustness: 2,
            report_interval: Duration::from_secs(1),
            old_report_interval: Duration::from_secs(10),
        }
    }
}

/// Which sources are wanted (RFC 3376 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterMode {
    /// Only those that are listed.
    Include,
    /// All but those that are listed.
    Exclude,
}

/// A filter: a mode and sources in order. Nothing is wanted by a filter that includes nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) mode: FilterMode,
    pub(crate) sources: Vec<Word>,
}

impl Filter {
    pub(crate) const NOTHING: Filter = Filter { mode: FilterMode::Include, sources: Vec::new() };
    pub(crate) const EVERYTHING: Filter = Filter { mode: FilterMode::Exclude, sources: Vec::new() };

    pub(crate) fn admits(&self, source: Word) -> bool {
        let listed = self.sources.binary_search(&source).is_ok();
        listed == (self.mode == FilterMode::Include)
    }

    pub(crate) fn is_nothing(&self) -> bool {
        self.mode == FilterMode::Include && self.sources.is_empty()
    }

    /// What the interface wants if its users want these (RFC 3376 §3.2).
    pub(crate) fn merge<'a>(filters: impl Iterator<Item = &'a Filter> + Clone) -> Filter {
        let of = |mode| filters.clone().filter(move |filter| filter.mode == mode);
        let included = || of(FilterMode::Include).flat_map(|filter| filter.sources.iter());
        if let Some(first) = of(FilterMode::Exclude).next() {
            let unwanted = |source: &&Word| {
                of(FilterMode::Exclude).all(|filter| filter.sources.binary_search(source).is_ok())
                    && !included().any(|other| other == *source)
            };
            let sources = first.sources.iter().filter(unwanted).copied().collect();
            return Filter { mode: FilterMode::Exclude, sources };
        }
        let mut sources: Vec<Word> = included().copied().collect();
        sources.sort_unstable();
        sources.dedup();
        Filter { mode: FilterMode::Include, sources }
    }
}

/// A record of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: RecordKind,
    pub(crate) group: Word,
    pub(crate) sources: Vec<Word>,
}

impl Record {
    /// The record in pieces whose sources take at most `room` bytes. One that excludes sources
    /// cannot be split: what does not fit is left out, and filtered here (RFC 3376 §4.2.16).
    pub(crate) fn pieces(
        &self,
        room: usize,
        size: usize,
    ) -> impl Iterator<Item = (RecordKind, Word, &[Word])> {
        let most = room / size;
        let whole = matches!(self.kind, RecordKind::IsExclude | RecordKind::ToExclude);
        let first = &self.sources[..self.sources.len().min(most)];
        let rest = if whole { &[] } else { &self.sources[first.len()..] };
        let parts = core::iter::once(first).chain(rest.chunks(most));
        parts.map(|sources| (self.kind, self.group, sources))
    }
}

/// Something that routers are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    /// By a report of the current version.
    Records(Vec<Record>),
    /// By a report of an older version.
    Listens(Word),
    /// That nobody listens any more: with version 2 of IGMP, version 1 of MLD.
    Leaves(Word),
}

/// A query, of whatever family and version.
#[derive(Clone, Debug)]
pub(crate) struct Query {
    /// 0: the current one, 1: the one before it, and so on.
    pub(crate) older: u8,
    /// An older one makes us speak it for a while.
    pub(crate) decides: bool,
    pub(crate) max_response: Duration,
    /// 0: all groups.
    pub(crate) group: Word,
    pub(crate) sources: Vec<Word>,
    pub(crate) robustness: u8,
    pub(crate) interval: u16,
}

#[derive(Clone, Debug)]
struct Group {
    address: Word,
    filter: Filter,
    /// How often a change of mode is still to be told.
    mode_left: u8,
    /// Sources that came or went, and how often each is still to be told.
    changes: Vec<(Word, u8)>,
    /// When a query for the group is answered, and for which sources; none: for all.
    response: Option<Instant>,
    asked: Vec<Word>,
    /// We were the last to report it to an older router, so leaving it is told.
    last_reporter: bool,
    /// Who listens besides sockets.
    internal: u16,
}

/// The groups of one family.
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    groups: Vec<Group>,
    limit: usize,
    /// When changes are told again.
    change: Option<Instant>,
    /// When a general query is answered.
    general: Option<Instant>,
    /// Until when there is a router of the version before the current one, and of the one before
    /// that.
    older: [Instant; 2],
    robustness: u8,
    default_robustness: u8,
    query_interval: Duration,
    report_interval: Duration,
    old_report_interval: Duration,
    /// Numbers drawn so far.
    drawn: u64,
    next: Option<Instant>,
}

/// The longest list of sources that is remembered of queries: a longer one is answered in full.
const MOST_ASKED: usize = 64;

impl Listening {
    pub(crate) fn new(config: &MulticastConfig) -> Self {
        Listening {
            groups: Vec::new(),
            limit: config.groups.into(),
            change: None,
            general: None,
            older: [Instant::ZERO; 2],
            robustness: config.robustness,
            default_robustness: config.robustness,
            query_interval: Duration::from_secs(125),
            report_interval: config.report_interval,
            old_report_interval: config.old_report_interval,
            drawn: 0,
            next: None,
        }
    }

    /// Whether somebody here listens to the group.
    #[inline]
    pub(crate) fn has(&self, group: Word) -> bool {
        self.groups.iter().any(|entry| entry.address == group && !entry.filter.is_nothing())
    }

    /// Whether one more group fits.
    pub(crate) fn has_room(&self, group: Word) -> bool {
        self.groups.len() < self.limit || self.groups.iter().any(|entry| entry.address == group)
    }

    /// Groups that somebody here listens to.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (Word, &Filter)> + '_ {
        let listening = self.groups.iter().filter(|group| !group.filter.is_nothing());
        listening.map(|group| (group.address, &group.filter))
    }

    /// When [`Listening::due`] has something to say.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.next
    }

    fn rearm(&mut self) {
        let responses = self.groups.iter().filter_map(|group| group.response);
        self.next = responses.chain(self.change).chain(self.general).min();
    }

    /// How many versions before the current one the routers speak.
    pub(crate) fn versions_back(&self, now: Instant) -> u8 {
        match self.older {
            [_, oldest] if now < oldest => 2,
            [old, _] if now < old => 1,
            _ => 0,
        }
    }

    fn random(&mut self, keys: &Keys, most: Duration) -> Duration {
        self.drawn += 1;
        let number = keys.prf(&[self.drawn, self.limit as u64, 0x6d63_6173]);
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX).max(1);
        Duration::from_nanos(number % nanos)
    }

    /// How many listen to a group besides sockets. Returns the number after the change.
    pub(crate) fn count_internal(&mut self, group: Word, join: bool) -> u16 {
        let entry = self.groups.iter_mut().find(|entry| entry.address == group);
        match (entry, join) {
            (Some(entry), true) => entry.internal += 1,
            (Some(entry), false) => entry.internal = entry.internal.saturating_sub(1),
            (None, true) => self.groups.push(Group { internal: 1, ..Group::new(group) }),
            (None, false) => {}
        }
        self.internal(group)
    }

    pub(crate) fn internal(&self, group: Word) -> u16 {
        let entry = self.groups.iter().find(|entry| entry.address == group);
        entry.map_or(0, |entry| entry.internal)
    }

    /// What is wanted of a group is this now. Routers are told at the next [`Listening::due`],
    /// unless the group is one that they do not ask for.
    pub(crate) fn set(&mut self, group: Word, filter: Filter, now: Instant, reported: bool) {
        let index = match self.groups.iter().position(|entry| entry.address == group) {
            Some(index) => index,
            None if filter.is_nothing() => return,
            None => {
                self.groups.push(Group::new(group));
                self.groups.len() - 1
            }
        };
        let robustness = self.robustness;
        let entry = &mut self.groups[index];
        if entry.filter != filter {
            if !reported {
                // Nobody has to know.
            } else if entry.filter.mode != filter.mode {
                entry.mode_left = robustness;
            } else {
                let differs = |source: &&Word| {
                    entry.filter.sources.contains(source) != filter.sources.contains(source)
                };
                let both = entry.filter.sources.iter().chain(&filter.sources);
                let changed: Vec<Word> = both.filter(differs).copied().collect();
                entry.changes.retain(|(source, _)| !changed.contains(source));
                entry.changes.extend(changed.into_iter().map(|source| (source, robustness)));
            }
            entry.filter = filter;
            if reported {
                self.change = Some(now);
            }
        }
        self.forget_settled();
        self.rearm();
    }

    /// Routers took no notice of what they were told so far: all is told as if it were new.
    pub(crate) fn tell_again(&mut self, now: Instant) {
        for group in self.groups.iter_mut().filter(|group| group.is_reported()) {
            group.mode_left = self.robustness;
            self.change = Some(now);
        }
        self.rearm();
    }

    /// Lets go of groups that nobody listens to and nobody has to be told of.
    fn forget_settled(&mut self) {
        self.groups.retain(|group| {
            !group.filter.is_nothing()
                || group.internal > 0
                || group.mode_left > 0
                || !group.changes.is_empty()
        });
    }

    /// A query came (RFC 3376 §5.2, RFC 3810 §6.2). Returns false if it asks for nothing of ours.
    pub(crate) fn query(
        &mut self,
        keys: &Keys,
        query: &Query,
        now: Instant,
        reported: impl Fn(Word) -> bool,
    ) -> bool {
        let before = self.versions_back(now);
        if query.older > 0 {
            if query.decides {
                let interval = self.query_interval * u32::from(self.robustness);
                let until = now + interval + query.max_response;
                self.older[usize::from(query.older.min(2)) - 1] = until;
            }
        } else {
            // A robustness of 0 is one that does not fit its field (RFC 3376 §4.1.6).
            let told = query.robustness;
            self.robustness = if told == 0 { self.default_robustness } else { told };
            if query.interval > 0 {
                self.query_interval = Duration::from_secs(query.interval.into());
            }
        }
        if self.versions_back(now) != before {
            // RFC 3376 §7.2.1: what is pending was meant for another kind of router.
            self.general = None;
            self.change = None;
            for group in &mut self.groups {
                (group.response, group.mode_left) = (None, 0);
                group.changes.clear();
            }
            self.forget_settled();
        }
        let delay = self.random(keys, query.max_response);
        let mut taken = false;
        if self.general.is_some_and(|at| at <= now + delay) {
            taken = true;
        } else if query.group == 0 && self.versions_back(now) == 0 {
            self.general = Some(now + delay);
            taken = true;
        } else {
            for index in 0..self.groups.len() {
                let delay = self.random(keys, query.max_response);
                let group = &mut self.groups[index];
                let meant = query.group == 0 || query.group == group.address;
                if meant && !group.filter.is_nothing() && reported(group.address) {
                    group.ask(&query.sources, now + delay);
                    taken = true;
                }
            }
        }
        self.rearm();
        taken
    }

    /// Another host reported a group in an older version, so we need not (RFC 2236 §3).
    pub(crate) fn heard_report(&mut self, group: Word, now: Instant) -> bool {
        let old = self.versions_back(now) > 0;
        let entry = self.groups.iter_mut().find(|entry| entry.address == group);
        let Some(entry) = entry.filter(|_| old) else { return false };
        let waited = entry.response.take().is_some() || entry.mode_left > 0;
        entry.asked.clear();
        entry.mode_left = 0;
        entry.last_reporter = false;
        self.rearm();
        waited
    }

    /// Whether [`Listening::due`] has something to do.
    #[inline]
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|at| at <= now)
    }

    /// What is to be told now; to be called until there is nothing.
    pub(crate) fn due(&mut self, keys: &Keys, now: Instant) -> Option<Tell> {
        if !self.is_due(now) {
            return None;
        }
        let tell = self.due_now(keys, now);
        self.forget_settled();
        self.rearm();
        tell
    }

    fn due_now(&mut self, keys: &Keys, now: Instant) -> Option<Tell> {
        let older = self.versions_back(now);
        if self.change.is_some_and(|at| at <= now) {
            if older > 0 {
                return self.old_change(keys, now, older).or_else(|| self.due_now(keys, now));
            }
            let records = self.change_records();
            let more = self.groups.iter().any(|one| one.mode_left > 0 || !one.changes.is_empty());
            let delay = self.random(keys, self.report_interval);
            self.change = more.then(|| now + delay.max(Duration::from_millis(1)));
            if !records.is_empty() {
                return Some(Tell::Records(records));
            }
        }
        if self.general.is_some_and(|at| at <= now) {
            self.general = None;
            // Answers that are pending say nothing that this one does not.
            for group in &mut self.groups {
                group.response = None;
                group.asked.clear();
            }
            let listening = self.groups.iter().filter(|group| group.is_reported());
            let records: Vec<Record> = listening.map(Group::current).collect();
            if !records.is_empty() {
                return Some(Tell::Records(records));
            }
        }
        for group in &mut self.groups {
            if group.response.is_none_or(|at| at > now) {
                continue;
            }
            group.response = None;
            let asked = core::mem::take(&mut group.asked);
            if group.filter.is_nothing() {
                continue;
            }
            if older > 0 {
                group.last_reporter = true;
                return Some(Tell::Listens(group.address));
            }
            if let Some(record) = group.answer(asked) {
                return Some(Tell::Records(vec![record]));
            }
        }
        None
    }

    /// The next change told to an older router, which knows of groups only.
    fn old_change(&mut self, keys: &Keys, now: Instant, older: u8) -> Option<Tell> {
        for group in &mut self.groups {
            if group.mode_left == 0 && group.changes.is_empty() {
                continue;
            }
            group.changes.clear();
            group.mode_left = 0;
            if group.filter.is_nothing() {
                group.response = None;
                // Version 1 of IGMP has no such message.
                if core::mem::take(&mut group.last_reporter) && older == 1 {
                    return Some(Tell::Leaves(group.address));
                }
                continue;
            }
            if group.response.is_some_and(|at| at > now) {
                // The answer that is pending says it.
                continue;
            }
            group.last_reporter = true;
            let (address, repeat) = (group.address, self.robustness > 1);
            let delay = self.random(keys, self.old_report_interval);
            if repeat && let Some(group) = self.groups.iter_mut().find(|one| one.address == address)
            {
                // The repetition is an answer that nobody asked for: a report of another host
                // makes it needless all the same.
                group.response = Some(now + delay);
            }
            return Some(Tell::Listens(address));
        }
        self.change = None;
        None
    }

    /// Records of what has changed, each counted down (RFC 3376 §5.1).
    fn change_records(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        for group in &mut self.groups {
            let address = group.address;
            if group.mode_left > 0 {
                group.mode_left -= 1;
                // The list is in the record, so its changes are told with it.
                group.count_changes(|_| true);
                let kind = match group.filter.mode {
                    FilterMode::Include => RecordKind::ToInclude,
                    FilterMode::Exclude => RecordKind::ToExclude,
                };
                let sources = group.filter.sources.clone();
                records.push(Record { kind, group: address, sources });
                continue;
            }
            let filter = group.filter.clone();
            let (allow, block): (Vec<Word>, Vec<Word>) = group
                .changes
                .iter()
                .map(|&(source, _)| source)
                .partition(|&source| filter.admits(source));
            group.count_changes(|_| true);
            for (kind, sources) in [(RecordKind::Allow, allow), (RecordKind::Block, block)] {
                if !sources.is_empty() {
                    records.push(Record { kind, group: address, sources });
                }
            }
        }
        records
    }

    /// Asserts that the bounds hold and that the next deadline is right.
    pub(crate) fn check(&self) {
        assert!(self.groups.len() <= self.limit, "{} groups", self.groups.len());
        let responses = self.groups.iter().filter_map(|group| group.response);
        assert_eq!(self.next, responses.chain(self.change).chain(self.general).min());
        for group in &self.groups {
            assert!(group.filter.sources.is_sorted(), "sources out of order");
            let pending = group.mode_left > 0 || !group.changes.is_empty();
            assert!(!pending || self.change.is_some(), "a change that nobody will be told of");
            assert!(group.asked.len() <= MOST_ASKED);
        }
    }
}

impl Group {
    fn new(address: Word) -> Group {
        Group {
            address,
            filter: Filter::NOTHING,
            mode_left: 0,
            changes: Vec::new(),
            response: None,
            asked: Vec::new(),
            last_reporter: false,
            internal: 0,
        }
    }

    /// Whether a general query's answer names it.
    fn is_reported(&self) -> bool {
        !self.filter.is_nothing() && crate::multicast::is_reported(self.address)
    }

    fn count_changes(&mut self, told: impl Fn(Word) -> bool) {
        self.changes.retain_mut(|(source, left)| {
            *left -= u8::from(told(*source));
            *left > 0
        });
    }

    /// A query for the group (RFC 3376 §5.2, rules 3 to 5).
    fn ask(&mut self, sources: &[Word], at: Instant) {
        let all = sources.is_empty()
            || (self.response.is_some() && self.asked.is_empty())
            || self.asked.len() + sources.len() > MOST_ASKED;
        if all {
            self.asked.clear();
        } else {
            self.asked.extend_from_slice(sources);
            self.asked.sort_unstable();
            self.asked.dedup();
        }
        self.response = Some(self.response.map_or(at, |pending| pending.min(at)));
    }

    fn current(&self) -> Record {
        let kind = match self.filter.mode {
            FilterMode::Include => RecordKind::IsInclude,
            FilterMode::Exclude => RecordKind::IsExclude,
        };
        Record { kind, group: self.address, sources: self.filter.sources.clone() }
    }

    /// What is said to a query for these sources; none: for all. `None` if none is wanted.
    fn answer(&self, mut asked: Vec<Word>) -> Option<Record> {
        if asked.is_empty() {
            return Some(self.current());
        }
        asked.retain(|&source| self.filter.admits(source));
        let record = Record { kind: RecordKind::IsInclude, group: self.address, sources: asked };
        (!record.sources.is_empty()).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn include(sources: &[Word]) -> Filter {
        Filter { mode: FilterMode::Include, sources: sources.to_vec() }
    }

    fn exclude(sources: &[Word]) -> Filter {
        Filter { mode: FilterMode::Exclude, sources: sources.to_vec() }
    }

    /// The examples of RFC 3376 §3.2, and what is left of them.
    #[test]
    fn filters_merge_as_the_rfc_says() {
        let merge = |filters: &[Filter]| Filter::merge(filters.iter());
        let (a, b, c, d, e, f) = (1, 2, 3, 4, 5, 6);
        assert_eq!(
            merge(&[exclude(&[a, b, c, d]), exclude(&[b, c, d, e]), include(&[d, e, f])]),
            exclude(&[b, c])
        );
        assert_eq!(merge(&[include(&[c, a]), include(&[b, c])]), include(&[a, b, c]));
        assert_eq!(merge(&[include(&[a]), Filter::EVERYTHING]), Filter::EVERYTHING);
        assert_eq!(merge(&[]), Filter::NOTHING);
    }

    #[test]
    fn a_filter_admits_what_it_says() {
        assert!(include(&[1]).admits(1) && !include(&[1]).admits(2));
        assert!(!exclude(&[1]).admits(1) && exclude(&[1]).admits(2));
        assert!(Filter::NOTHING.is_nothing() && !Filter::EVERYTHING.is_nothing());
    }
}
