//! Descriptors: numbers that the kernel gave out, so that they clash with nothing that packetdrill
//! opens itself, and so that it can close them past its table.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{IntoRawFd, RawFd};

use crate::errno::{Errno, Result};
use crate::pipe::End;
use crate::poll::Epoll;
use crate::socket::Socket;

/// What a descriptor stands for.
pub(crate) enum Object {
    Socket(Box<Socket>),
    Epoll(Epoll),
    Pipe(End),
}

/// All open descriptors of the plug-in. Numbers, not owned files: packetdrill closes what a script
/// left open past its table.
#[derive(Default)]
pub(crate) struct Descriptors {
    objects: BTreeMap<RawFd, Object>,
}

impl Descriptors {
    pub(crate) fn insert(&mut self, object: Object) -> Result<RawFd> {
        let file = File::open("/dev/null")
            .map_err(|error| Errno(error.raw_os_error().unwrap_or(libc::EMFILE)))?;
        let number = file.into_raw_fd();
        self.objects.insert(number, object);
        Ok(number)
    }

    pub(crate) fn remove(&mut self, number: RawFd) -> Result<Object> {
        let object = self.objects.remove(&number).ok_or(Errno(libc::EBADF))?;
        // SAFETY: the number was taken by `insert`; if it was closed behind our back, the kernel
        // says so and nothing is lost.
        unsafe { libc::close(number) };
        Ok(object)
    }

    pub(crate) fn contains(&self, number: RawFd) -> bool {
        self.objects.contains_key(&number)
    }

    pub(crate) fn get(&self, number: RawFd) -> Result<&Object> {
        self.objects.get(&number).ok_or(Errno(libc::EBADF))
    }

    pub(crate) fn get_mut(&mut self, number: RawFd) -> Result<&mut Object> {
        self.objects.get_mut(&number).ok_or(Errno(libc::EBADF))
    }

    pub(crate) fn socket(&self, number: RawFd) -> Result<&Socket> {
        match self.get(number)? {
            Object::Socket(socket) => Ok(socket),
            _ => Err(Errno(libc::ENOTSOCK)),
        }
    }

    pub(crate) fn socket_mut(&mut self, number: RawFd) -> Result<&mut Socket> {
        match self.get_mut(number)? {
            Object::Socket(socket) => Ok(socket),
            _ => Err(Errno(libc::ENOTSOCK)),
        }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (RawFd, &mut Object)> {
        self.objects.iter_mut().map(|(&number, object)| (number, object))
    }
}
