//! A socket's error queue: reports about what was written (`MSG_ZEROCOPY` and time stamps of
//! transmission, `Documentation/networking/msg_zerocopy.rst` and `timestamping.rst` of Linux).
//!
//! The stack copies what is written, so every completion of a zero-copy write says that it was
//! copied, as Linux's do where a device cannot do without. What a report waits for is read off the
//! connection's queue: how much of what was written has left, and how much is acknowledged.

use std::collections::VecDeque;

use millrace_frames::Instant;

use crate::shared::Outcome;

const SO_EE_ORIGIN_TIMESTAMPING: u8 = 4;
const SO_EE_ORIGIN_ZEROCOPY: u8 = 5;
const SO_EE_CODE_ZEROCOPY_COPIED: u8 = 1;
const SCM_TSTAMP_SND: u32 = 0;
const SCM_TSTAMP_SCHED: u32 = 1;
const SCM_TSTAMP_ACK: u32 = 2;

/// `SO_TIMESTAMPING`'s bits that are understood (`linux/net_tstamp.h`).
mod stamp {
    pub(super) const TX_SOFTWARE: u32 = 1 << 1;
    pub(super) const SOFTWARE: u32 = 1 << 4;
    pub(super) const OPT_ID: u32 = 1 << 7;
    pub(super) const TX_SCHED: u32 = 1 << 8;
    pub(super) const TX_ACK: u32 = 1 << 9;
    pub(super) const KNOWN: u32 = TX_SOFTWARE | SOFTWARE | OPT_ID | TX_SCHED | TX_ACK;
}

/// Something that is reported once what was written up to `end` has come so far.
#[derive(Clone, Copy, Debug)]
enum Awaited {
    /// It has left: reports of both kinds that were asked for.
    Sent { end: u64, key: u32, scheduled: bool, sent: bool },
    /// It is acknowledged.
    Acknowledged { end: u64, key: u32 },
    /// It is acknowledged, and the memory is free.
    Copied { end: u64, number: u32 },
}

#[derive(Clone, Copy, Debug)]
enum Report {
    Stamp {
        at: Instant,
        what: u32,
        key: u32,
    },
    /// Numbers of the first and the last write that are done.
    Copied {
        first: u32,
        last: u32,
    },
}

/// The error queue and what may still come into it.
#[derive(Debug, Default)]
pub(crate) struct ErrorQueue {
    awaited: Vec<Awaited>,
    reports: VecDeque<Report>,
    zero_copy_writes: u32,
    /// `SO_TIMESTAMPING`, and where its numbers of bytes begin.
    stamps: u32,
    stamps_from: u64,
}

impl ErrorQueue {
    /// Sets `SO_TIMESTAMPING` when `written` bytes have been written. False: a bit that means
    /// nothing here.
    pub(crate) fn set_stamps(&mut self, bits: u32, written: u64) -> bool {
        if bits & !stamp::KNOWN != 0 {
            return false;
        }
        if bits & stamp::OPT_ID != 0 && self.stamps & stamp::OPT_ID == 0 {
            self.stamps_from = written;
        }
        self.stamps = bits;
        true
    }

    /// Notes a write that ends at `end`.
    pub(crate) fn written(&mut self, end: u64, zero_copy: bool) {
        if zero_copy {
            self.awaited.push(Awaited::Copied { end, number: self.zero_copy_writes });
            self.zero_copy_writes = self.zero_copy_writes.wrapping_add(1);
        }
        if self.stamps & stamp::SOFTWARE == 0 {
            return;
        }
        let has = |bit| self.stamps & bit != 0;
        // The number of the write's last byte.
        let key =
            if has(stamp::OPT_ID) { (end - self.stamps_from).wrapping_sub(1) as u32 } else { 0 };
        let (scheduled, sent) = (has(stamp::TX_SCHED), has(stamp::TX_SOFTWARE));
        if scheduled || sent {
            self.awaited.push(Awaited::Sent { end, key, scheduled, sent });
        }
        if has(stamp::TX_ACK) {
            self.awaited.push(Awaited::Acknowledged { end, key });
        }
    }

    /// Reports what has come about. Returns whether something has.
    pub(crate) fn progress(&mut self, sent: u64, acknowledged: u64, now: Instant) -> bool {
        if self.awaited.is_empty() {
            return false;
        }
        let before = self.awaited.len();
        let reports = &mut self.reports;
        self.awaited.retain(|&awaited| {
            let mut stamp = |what, key| reports.push_back(Report::Stamp { at: now, what, key });
            match awaited {
                Awaited::Sent { end, key, scheduled, sent: software } if end <= sent => {
                    if scheduled {
                        stamp(SCM_TSTAMP_SCHED, key);
                    }
                    if software {
                        stamp(SCM_TSTAMP_SND, key);
                    }
                    false
                }
                Awaited::Acknowledged { end, key } if end <= acknowledged => {
                    stamp(SCM_TSTAMP_ACK, key);
                    false
                }
                Awaited::Copied { end, number } if end <= acknowledged => {
                    match reports.back_mut() {
                        // Completions that nobody has fetched become one.
                        Some(Report::Copied { last, .. }) if last.wrapping_add(1) == number => {
                            *last = number;
                        }
                        _ => reports.push_back(Report::Copied { first: number, last: number }),
                    }
                    false
                }
                _ => true,
            }
        });
        self.awaited.len() < before
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// The next report, as `recvmsg` with `MSG_ERRQUEUE` gives it.
    pub(crate) fn take(&mut self, v6: bool) -> Option<Outcome> {
        let mut outcome = Outcome { message_flags: libc::MSG_ERRQUEUE, ..Outcome::default() };
        let extended = match self.reports.pop_front()? {
            Report::Stamp { at, what, key } => {
                // Three times; only the first is a software's.
                let nanos = at.as_nanos();
                let mut times = [0_u64; 6];
                times[0] = nanos / 1_000_000_000;
                times[1] = nanos % 1_000_000_000;
                let bytes = times.iter().flat_map(|word| word.to_ne_bytes()).collect();
                outcome.control.push((libc::SOL_SOCKET, libc::SO_TIMESTAMPING, bytes));
                // What was written is not given back.
                outcome.message_flags |= libc::MSG_TRUNC;
                extended_error(libc::ENOMSG, SO_EE_ORIGIN_TIMESTAMPING, 0, what, key)
            }
            Report::Copied { first, last } => {
                extended_error(0, SO_EE_ORIGIN_ZEROCOPY, SO_EE_CODE_ZEROCOPY_COPIED, first, last)
            }
        };
        let (level, kind, offender) = if v6 {
            (libc::SOL_IPV6, libc::IPV6_RECVERR, size_of::<libc::sockaddr_in6>())
        } else {
            (libc::SOL_IP, libc::IP_RECVERR, size_of::<libc::sockaddr_in>())
        };
        let mut bytes = extended;
        // Nobody's address: the report is the host's own.
        bytes.resize(bytes.len() + offender, 0);
        outcome.control.push((level, kind, bytes));
        Some(outcome)
    }
}

/// `struct sock_extended_err` (`linux/errqueue.h`).
fn extended_error(number: i32, origin: u8, code: u8, info: u32, data: u32) -> Vec<u8> {
    let mut bytes = (number as u32).to_ne_bytes().to_vec();
    bytes.extend([origin, 0, code, 0]);
    bytes.extend(info.to_ne_bytes());
    bytes.extend(data.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_millis(7_020);

    fn word(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_copied_write_is_reported_when_all_of_it_is_acknowledged() {
        let mut queue = ErrorQueue::default();
        queue.written(4000, true);
        assert!(!queue.progress(4000, 3999, NOW));
        assert!(queue.is_empty());
        assert!(queue.progress(4000, 4000, NOW));
        let report = queue.take(false).unwrap();
        let (level, kind, bytes) = &report.control[0];
        assert_eq!((*level, *kind, bytes.len()), (libc::SOL_IP, libc::IP_RECVERR, 32));
        assert_eq!((bytes[4], bytes[6]), (SO_EE_ORIGIN_ZEROCOPY, SO_EE_CODE_ZEROCOPY_COPIED));
        assert_eq!((word(bytes, 8), word(bytes, 12)), (0, 0));
        assert!(queue.take(false).is_none());
    }

    #[test]
    fn completions_that_wait_become_one() {
        let mut queue = ErrorQueue::default();
        for end in [10, 20, 30] {
            queue.written(end, true);
            queue.progress(end, end, NOW);
        }
        let report = queue.take(true).unwrap();
        let (level, _, bytes) = &report.control[0];
        assert_eq!((*level, bytes.len()), (libc::SOL_IPV6, 44));
        assert_eq!((word(bytes, 8), word(bytes, 12)), (0, 2));
    }

    #[test]
    fn time_stamps_name_the_last_byte_of_a_write() {
        let mut queue = ErrorQueue::default();
        let all = stamp::KNOWN;
        assert!(queue.set_stamps(all, 500));
        assert!(!queue.set_stamps(1, 500), "hardware stamps are refused");
        queue.written(1500, false);
        assert!(queue.progress(1500, 0, NOW));
        assert!(queue.progress(1500, 1500, NOW));
        for what in [SCM_TSTAMP_SCHED, SCM_TSTAMP_SND, SCM_TSTAMP_ACK] {
            let report = queue.take(false).unwrap();
            assert_eq!(report.message_flags, libc::MSG_ERRQUEUE | libc::MSG_TRUNC);
            assert_eq!(word(&report.control[0].2, 8), 20_000_000);
            assert_eq!(word(&report.control[1].2, 8), what);
            assert_eq!(word(&report.control[1].2, 12), 999);
        }
    }
}
