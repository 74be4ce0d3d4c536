//! What servers gave us, by their address: cookies, their segment size, and whether SYNs with data
//! reach them (RFC 7413 §4.1.3).

use millrace_wire::tcp::FastOpen;

use crate::address::Word;
use crate::hash::Keys;

/// Places that an address may have.
const WAYS: usize = 4;

/// SYNs with data that were lost in a row before the next one goes without.
const LOSSES: u8 = 2;

/// Seconds for which SYNs then go without data, doubled with each further loss.
const FIRST_PAUSE: u32 = 60;

/// What is known of a server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Server {
    remote: Word,
    used_at: u32,
    pub(crate) cookie: Option<FastOpen>,
    /// The cookie came in the option's experimental form, or was asked for so the last time.
    pub(crate) experiment: bool,
    /// The next request is in the experimental form: 1, for it was refused in the other; 2: that
    /// was of no use either.
    pub(crate) try_experiment: u8,
    /// What the server's SYN-ACK said; 0: nothing yet.
    pub(crate) mss: u16,
    losses: u8,
    lost_at: u32,
}

impl Server {
    /// Whether SYNs with data or options were lost so often that this one goes without.
    pub(crate) fn is_black_hole(&self, now_s: u32) -> bool {
        let pause = FIRST_PAUSE << self.losses.min(10);
        self.losses >= LOSSES && now_s.wrapping_sub(self.lost_at) < pause
    }

    /// A SYN-ACK came. `lost`: for a SYN without data, after one with data.
    pub(crate) fn answered(&mut self, lost: bool, now_s: u32) {
        if lost {
            self.losses = self.losses.saturating_add(1);
            self.lost_at = now_s;
        } else {
            self.losses = 0;
        }
    }
}

/// A bounded table, made when it is first needed.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    servers: Box<[Server]>,
}

impl Cache {
    fn set(&self, keys: &Keys, remote: Word) -> core::ops::Range<usize> {
        let sets = self.servers.len() / WAYS;
        if sets == 0 {
            return 0..0;
        }
        let hash = keys.prf(&[remote as u64, (remote >> 64) as u64]) as usize;
        let first = hash % sets * WAYS;
        first..first + WAYS
    }

    pub(crate) fn get(&self, keys: &Keys, remote: Word) -> Option<&Server> {
        self.servers[self.set(keys, remote)].iter().find(|server| server.remote == remote)
    }

    /// The server's place, the least recently used one's if it had none. `most` is the size of
    /// the table.
    pub(crate) fn entry(
        &mut self,
        keys: &Keys,
        remote: Word,
        most: u32,
        now_s: u32,
    ) -> Option<&mut Server> {
        if self.servers.is_empty() {
            let size = (most as usize).next_multiple_of(WAYS);
            self.servers = vec![Server::default(); size].into_boxed_slice();
        }
        let set = self.set(keys, remote);
        let set = &mut self.servers[set];
        let at = match set.iter().position(|server| server.remote == remote) {
            Some(at) => at,
            None => {
                let age = |server: &Server| match server.remote {
                    0 => u32::MAX,
                    _ => now_s.wrapping_sub(server.used_at),
                };
                let oldest = (0..set.len()).max_by_key(|&at| age(&set[at]))?;
                set[oldest] = Server { remote, ..Server::default() };
                oldest
            }
        };
        set[at].used_at = now_s;
        Some(&mut set[at])
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.servers = Box::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_makes_way() {
        let keys = Keys::new([1, 2, 3, 4]);
        let mut cache = Cache::default();
        assert!(cache.get(&keys, 7).is_none());
        for now in 1..=4u32 {
            cache.entry(&keys, now.into(), 4, now).unwrap().mss = now as u16;
        }
        cache.entry(&keys, 1, 4, 5).unwrap();
        cache.entry(&keys, 9, 4, 6).unwrap().mss = 9;
        assert!(cache.get(&keys, 2).is_none());
        assert_eq!([1, 3, 4, 9].map(|one| cache.get(&keys, one).unwrap().mss), [1, 3, 4, 9]);
        assert!(Cache::default().entry(&keys, 1, 0, 0).is_none());
    }

    #[test]
    fn after_two_losses_there_is_a_pause_that_grows() {
        let mut server = Server::default();
        server.answered(true, 100);
        assert!(!server.is_black_hole(100));
        server.answered(true, 100);
        assert!(server.is_black_hole(339) && !server.is_black_hole(340));
        server.answered(true, 400);
        assert!(server.is_black_hole(879) && !server.is_black_hole(880));
        server.answered(false, 400);
        assert!(!server.is_black_hole(400));
    }
}
