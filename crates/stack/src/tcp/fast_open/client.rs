//! The client's side of Fast Open (RFC 7413 §4.2.1): cookies are asked for, and with one, data
//! goes with the SYN. Whatever goes wrong, the next SYN has neither, and the data follows the
//! handshake.

use core::net::{IpAddr, SocketAddr};
use std::io;

use millrace_frames::Owners;
use millrace_wire::seq::Seq;
use millrace_wire::tcp::{FastOpen, MAX_OPTIONS_LEN, OptionWriter};

use crate::address::{Word, word};
use crate::stack::Stack;
use crate::tcp::api::ConnectionId;
use crate::tcp::connection::{Features, Flags, State};
use crate::tcp::handshake::peer_mss;
use crate::tcp::input::Segment;
use crate::tcp::output::Payload;
use crate::tcp::scoreboard::frame_of;

/// What a connection in SYN-SENT tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The option of the first SYN; none where data goes without a cookie.
    pub(crate) option: Option<FastOpen>,
    /// It has the experimental form.
    pub(crate) experiment: bool,
    /// Most bytes of data in the SYN; 0: none.
    pub(crate) most: u16,
    /// Bytes that went with it.
    pub(crate) sent: u16,
    /// It was too large for the path: the next one has neither the option nor data.
    pub(crate) too_large: bool,
}

impl Stack {
    /// Opens a connection and writes `data`, which goes with the SYN as far as it fits and the
    /// server is known to take it (RFC 7413); if not, a cookie is asked for and the data waits.
    /// Returns how many bytes were taken, as [`Stack::write`] does.
    ///
    /// Data in a SYN may reach the server's application twice: use it for requests that may be
    /// repeated (RFC 7413 §6.1).
    ///
    /// # Errors
    /// As [`Stack::connect`].
    pub fn connect_with_data(
        &mut self,
        remote: SocketAddr,
        local: Option<SocketAddr>,
        data: &[u8],
    ) -> io::Result<(ConnectionId, usize)> {
        let id = self.connect(remote, local)?;
        self.attempt_fast_open(id.index(), remote.ip());
        if data.is_empty() {
            return Ok((id, 0));
        }
        let index = id.index();
        let attempt = self.transfer(index).and_then(|transfer| transfer.fast_open);
        let first = attempt.map_or(0, |attempt| usize::from(attempt.most));
        if first == 0 || data.len() <= first {
            return Ok((id, self.write(id, data)?));
        }
        // A frame of its own, which ends where the SYN does.
        let (first, rest) = data.split_at(first);
        let written = self.write(id, first)?;
        if written < first.len() {
            return Ok((id, written));
        }
        self.connections[index].end_record(&mut self.arena);
        Ok((id, written + self.write(id, rest)?))
    }

    /// Bytes of data that a SYN to this address may carry now; `None`: there is no cookie, or
    /// SYNs with data were lost on the way there.
    pub fn fast_open_room(&self, remote: IpAddr) -> Option<u16> {
        let config = &self.config.fast_open;
        let known = self.fast_open_cache.get(&self.keys, word(remote));
        let possible = config.client
            && !known.is_some_and(|server| server.is_black_hole(self.now_s))
            && (config.client_without_cookie || known.is_some_and(|one| one.cookie.is_some()));
        let mss = known.map_or(0, |server| server.mss);
        possible.then(|| self.syn_room(word(remote), mss))
    }

    /// Forgets all cookies, and which servers SYNs with data do not reach.
    pub fn forget_fast_open(&mut self) {
        self.fast_open_cache.clear();
    }

    /// Payload of a SYN to a server whose segment size was `mss` (0: unknown).
    fn syn_room(&self, remote: Word, mss: u16) -> u16 {
        let own = self.own_mss(remote);
        let mss = if mss == 0 { own } else { mss.min(own) };
        mss.saturating_sub(MAX_OPTIONS_LEN as u16)
    }

    fn attempt_fast_open(&mut self, index: usize, remote: IpAddr) {
        let config = &self.config.fast_open;
        if !config.client {
            return;
        }
        let known = self.fast_open_cache.get(&self.keys, word(remote)).copied();
        if known.is_some_and(|server| server.is_black_hole(self.now_s)) {
            self.counters.fast_open_black_holes += 1;
            return;
        }
        let server = known.unwrap_or_default();
        let room = self.syn_room(word(remote), server.mss);
        let attempt = if config.client_without_cookie {
            Attempt { most: room, ..Attempt::default() }
        } else if let Some(cookie) = server.cookie {
            Attempt {
                option: Some(cookie),
                experiment: server.experiment,
                most: room,
                ..Attempt::default()
            }
        } else {
            let option = Some(FastOpen::REQUEST);
            Attempt { option, experiment: server.try_experiment == 1, ..Attempt::default() }
        };
        self.transfer_mut(index).fast_open = Some(attempt);
    }

    /// Adds the option of a first SYN.
    pub(crate) fn fast_open_option(&self, index: usize, options: &mut OptionWriter) {
        let connection = &self.connections[index];
        let (option, experiment) = match connection.state {
            State::SynReceived if connection.features.has(Features::COOKIE_DUE) => {
                (self.cookie_of(index), connection.features.has(Features::EXPERIMENT))
            }
            State::SynSent if connection.retries == 0 => {
                let attempt = self.transfer(index).and_then(|one| one.fast_open);
                let Some(attempt) = attempt.filter(|attempt| !attempt.too_large) else { return };
                (attempt.option, attempt.experiment)
            }
            _ => return,
        };
        let Some(option) = option else { return };
        if experiment {
            options.fast_open_experiment(&option);
        } else {
            options.fast_open(&option);
        }
    }

    /// The payload of a SYN: a copy of what was written first. `None`: there is none, or no frame
    /// for it.
    pub(crate) fn syn_payload(&mut self, index: usize) -> Option<Payload> {
        let connection = &self.connections[index];
        if connection.state != State::SynSent || connection.retries > 0 {
            return None;
        }
        let first = connection.send.head.get()?;
        let transfer = self.transfers.get_mut(connection.transfer)?;
        let attempt = transfer.fast_open.as_mut();
        let attempt = attempt.filter(|attempt| attempt.most > 0 && !attempt.too_large)?;
        let meta = *self.arena.meta(first);
        let len = meta.len.min(attempt.most);
        let frame = self.arena.allocate(Owners::TRANSMIT)?;
        self.arena.append_from(frame, first, meta.offset.into(), len.into());
        attempt.sent = len;
        // What is written from now on does not join what the SYN carries.
        self.arena.meta_mut(first).record_end |= len == meta.len;
        let sum = match self.config.tx_checksum {
            true => 0,
            false => millrace_wire::checksum::sum(self.arena.bytes(frame)),
        };
        Some(Payload { frame, len: len.into(), sum })
    }

    /// A router says that our SYN with data was too large. Another one without leaves at once.
    pub(crate) fn syn_too_large(&mut self, index: usize) {
        let connection = &mut self.connections[index];
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        let Some(attempt) = &mut transfer.fast_open else { return };
        if attempt.sent > 0 && connection.retries == 0 && !attempt.too_large {
            attempt.too_large = true;
            connection.flags.set(Flags::SEND_SYN);
            self.push_out(index);
        }
    }

    /// Bytes of data that went with our SYN.
    pub(crate) fn syn_data(&self, index: usize) -> u32 {
        let attempt = self.transfer(index).and_then(|transfer| transfer.fast_open);
        attempt.map_or(0, |attempt| attempt.sent.into())
    }

    /// A SYN-ACK came that acknowledges up to `ack`: what it says of Fast Open is remembered. To
    /// be called when the connection has taken everything else from it.
    pub(crate) fn fast_open_answered(&mut self, index: usize, segment: &Segment, retries: u8) {
        let Some(transfer) = self.transfers.get_mut(self.connections[index].transfer) else {
            return;
        };
        let Some(attempt) = transfer.fast_open.take() else { return };
        let connection = &mut self.connections[index];
        let taken = (segment.ack - (connection.iss + 1)).max(0) as u32;
        if attempt.sent > 0 {
            if taken == u32::from(attempt.sent) {
                connection.features.set(Features::FAST_OPEN);
                self.counters.fast_open_active += 1;
            } else {
                self.counters.fast_open_active_failed += 1;
                let end = connection.iss + 1 + u32::from(attempt.sent);
                self.resend_syn_data(index, end);
            }
        }
        // A cookie that was not asked for is none of ours.
        let cookie = segment
            .options
            .fast_open
            .filter(|cookie| attempt.option.is_some() && !cookie.is_request());
        let lost = retries > 0 && cookie.is_none() && attempt.sent > 0 && taken == 0;
        let remote = self.connections[index].remote;
        let (most, now_s) = (self.config.fast_open.cache, self.now_s);
        let Some(server) = self.fast_open_cache.entry(&self.keys, remote, most, now_s) else {
            return;
        };
        server.mss = peer_mss(segment.options.mss, remote);
        if let Some(cookie) = cookie {
            server.cookie = Some(cookie);
            server.experiment = segment.options.fast_open_experiment;
        } else if attempt.option.is_some()
            && retries == 0
            && attempt.sent == 0
            && server.cookie.is_none()
        {
            // Asked for and not given: the other form is tried once.
            let next = if attempt.experiment { 2 } else { 1 };
            server.try_experiment = server.try_experiment.max(next);
        }
        server.answered(lost, now_s);
    }

    /// What the server did not take of our SYN's data, which ends at `end`, is lost, and not to
    /// congestion: it was in flight and is sent again at once, as the piece that it was.
    fn resend_syn_data(&mut self, index: usize, end: Seq) {
        let connection = &self.connections[index];
        let (start, frame) = (connection.snd_una, connection.send.head);
        self.note_sent(index, start, end, frame);
        let connection = &mut self.connections[index];
        connection.snd_nxt = end;
        connection.cursor = frame_of(&self.arena, frame, end);
        let Some(transfer) = self.transfers.get_mut(connection.transfer) else { return };
        transfer.sent.keeps_losses = false;
        transfer.sent.mark_lost(0);
        transfer.recovery.lost_without_congestion(end);
        self.push_out(index);
    }

    /// The last number that a SYN-ACK may acknowledge.
    pub(crate) fn syn_end(&self, index: usize) -> Seq {
        self.connections[index].iss + 1 + self.syn_data(index)
    }
}
