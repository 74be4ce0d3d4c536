//! What the program does meanwhile: every call of the stack, in any order.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::time::Duration;

use millrace_frames::Owners;
use millrace_stack::{ConnectionId, Event};

use crate::craft::{PEER_IP, STACK_IP};
use crate::craft6::PEER_V6;

use super::script::Script;
use super::{FLOWS, Target, any};

impl Target {
    pub(super) fn program(&mut self, script: &mut Script<'_>) {
        let choice = usize::from(script.byte());
        let id = match self.connections.len() {
            0 => None,
            len => Some((choice % len, self.connections[choice % len])),
        };
        match (script.byte() % 16, id) {
            (0..=2, Some((_, id))) => {
                let data = vec![0x77; usize::from(script.word()) % 30_000];
                let _ = self.stack.write(id, &data);
            }
            (3 | 4, Some((_, id))) => self.read(id, usize::from(script.byte() % 8)),
            (5, Some((_, id))) => drop(self.stack.shutdown_write(id)),
            (6, Some((_, id))) => drop(self.stack.shutdown_read(id)),
            (7, Some((at, id))) => {
                self.stack.close(id);
                self.connections.swap_remove(at);
            }
            (8, Some((_, id))) => self.stack.abort(id),
            (9, Some((_, id))) => {
                let linger = Duration::from_millis(script.word().into());
                let _ = self.stack.set_linger(id, script.one_in(2).then_some(linger));
            }
            (10, Some((_, id))) => {
                let _ = self.stack.set_no_delay(id, script.one_in(2));
                let _ = self.stack.rearm(id);
            }
            (11, _) => {
                let number = script.byte() % 12;
                let (six, last) = (number >= 6, 2 + number % 6);
                let host: IpAddr = match six {
                    true => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()).into(),
                    false => Ipv4Addr::new(192, 0, 2, last).into(),
                };
                let port = 5000 + u16::from(script.byte()) % 16;
                let remote = SocketAddr::new(host, port);
                let opened = if script.one_in(3) {
                    let data = vec![0x33; usize::from(script.word()) % 3000];
                    self.stack.connect_with_data(remote, None, &data).map(|(id, _)| id)
                } else {
                    self.stack.connect(remote, None)
                };
                if let Ok(id) = opened {
                    let local = self.stack.info(id).expect("just made").local.port();
                    self.connections.push(id);
                    let number = usize::from(script.byte()) % FLOWS;
                    let flow = &mut self.flows[number];
                    (flow.peer_port, flow.stack_port, flow.six) = (port, local, six);
                }
            }
            (12, _) => match self.listener.take() {
                Some(listener) => self.stack.close_listener(listener),
                None => {
                    self.listener =
                        self.stack.listen(any(80), 1 + u32::from(script.byte()) % 8).ok();
                }
            },
            (13, _) => self.datagram_calls(script),
            (14, _) => self.events(),
            _ => self.stack.announce(),
        }
        self.collect();
    }

    pub(super) fn datagram_calls(&mut self, script: &mut Script<'_>) {
        let Some(&socket) = self.sockets.first() else {
            let local = SocketAddr::new(STACK_IP.into(), 53);
            self.sockets.extend(self.stack.bind_datagram(local));
            return;
        };
        match script.byte() % 6 {
            4 | 5 => {
                let six = script.one_in(2);
                let number = script.byte() % 5;
                let group: IpAddr = match six {
                    true => Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, u16::from(number)).into(),
                    false => Ipv4Addr::new(239, 0, 0, number).into(),
                };
                let source = || match six {
                    true => IpAddr::from(PEER_V6),
                    false => Ipv4Addr::new(198, 51, 100, 1).into(),
                };
                let named = script.one_in(2).then(source);
                let _ = match script.byte() % 5 {
                    0 | 1 => self.stack.join_group(socket, group, named),
                    2 => self.stack.leave_group(socket, group, named),
                    3 => self.stack.block_source(socket, group, source()),
                    _ => self.stack.unblock_source(socket, group, source()),
                };
            }
            0 => {
                let host = match script.one_in(4) {
                    true => Ipv4Addr::new(239, 0, 0, script.byte() % 4),
                    false => Ipv4Addr::new(192, 0, 2, script.byte() % 8),
                };
                let remote = SocketAddr::new(host.into(), script.word());
                let most = if script.one_in(4) { 25_000 } else { 1600 };
                let data = vec![1; usize::from(script.word()) % most];
                let _ = self.stack.send_datagram(socket, &data, Some(remote));
            }
            1 => {
                while let Ok(Some(datagram)) = self.stack.receive_datagram(socket) {
                    self.stack.arena_mut().release_chain(datagram.frame, Owners::RECEIVED);
                }
            }
            2 => {
                let remote = SocketAddr::new(PEER_IP.into(), script.word());
                let _ = self.stack.connect_datagram(socket, remote);
            }
            _ => {
                self.stack.close_datagram(socket);
                self.sockets.clear();
            }
        }
    }

    pub(super) fn read(&mut self, id: ConnectionId, frames: usize) {
        for _ in 0..frames {
            let Ok(Some(frame)) = self.stack.read(id) else { return };
            self.stack.arena_mut().release(frame, Owners::RECEIVED);
        }
    }

    pub(super) fn events(&mut self) {
        let mut count = 0;
        while let Some(event) = self.stack.next_event() {
            count += 1;
            assert!(count < 1000, "events without end: {event:?}");
            match event {
                Event::Accept(listener) => {
                    if let Ok(Some(id)) = self.stack.accept(listener) {
                        self.connections.push(id);
                    }
                }
                Event::Connection(id, _) => {
                    self.stack.info(id).expect("an event about a live handle");
                }
                Event::Datagram(_) => {}
            }
        }
    }
}
