//! The table of calls that packetdrill hands over to be filled, as its header has it.

use core::ffi::{c_int, c_long, c_longlong, c_uint, c_ulong, c_void};

use libc::{
    epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, sockaddr, socklen_t, timeval, timezone,
};

/// A world, as packetdrill passes it around.
pub type Userdata = *mut c_void;
/// How C returns the size of what was moved.
pub type Size = isize;

/// The table that packetdrill hands over to be filled. `fcntl` and `ioctl` are variadic in C; the
/// calling conventions of Linux pass one more integer or pointer as if it were named.
#[repr(C)]
pub struct Interface {
    /// First argument of every call.
    pub userdata: Userdata,
    /// Ends the plug-in.
    pub free: Option<unsafe extern "C" fn(Userdata)>,
    /// socket(2).
    pub socket: Option<unsafe extern "C" fn(Userdata, c_int, c_int, c_int) -> c_int>,
    /// bind(2).
    pub bind: Option<unsafe extern "C" fn(Userdata, c_int, *const sockaddr, socklen_t) -> c_int>,
    /// listen(2).
    pub listen: Option<unsafe extern "C" fn(Userdata, c_int, c_int) -> c_int>,
    /// accept(2).
    pub accept:
        Option<unsafe extern "C" fn(Userdata, c_int, *mut sockaddr, *mut socklen_t) -> c_int>,
    /// connect(2).
    pub connect: Option<unsafe extern "C" fn(Userdata, c_int, *const sockaddr, socklen_t) -> c_int>,
    /// read(2).
    pub read: Option<unsafe extern "C" fn(Userdata, c_int, *mut c_void, usize) -> Size>,
    /// readv(2).
    pub readv: Option<unsafe extern "C" fn(Userdata, c_int, *const iovec, c_int) -> Size>,
    /// recv(2).
    pub recv: Option<unsafe extern "C" fn(Userdata, c_int, *mut c_void, usize, c_int) -> Size>,
    /// recvfrom(2).
    pub recvfrom: Option<
        unsafe extern "C" fn(
            Userdata,
            c_int,
            *mut c_void,
            usize,
            c_int,
            *mut sockaddr,
            *mut socklen_t,
        ) -> Size,
    >,
    /// recvmsg(2).
    pub recvmsg: Option<unsafe extern "C" fn(Userdata, c_int, *mut msghdr, c_int) -> Size>,
    /// write(2).
    pub write: Option<unsafe extern "C" fn(Userdata, c_int, *const c_void, usize) -> Size>,
    /// writev(2).
    pub writev: Option<unsafe extern "C" fn(Userdata, c_int, *const iovec, c_int) -> Size>,
    /// send(2).
    pub send: Option<unsafe extern "C" fn(Userdata, c_int, *const c_void, usize, c_int) -> Size>,
    /// sendto(2).
    pub sendto: Option<
        unsafe extern "C" fn(
            Userdata,
            c_int,
            *const c_void,
            usize,
            c_int,
            *const sockaddr,
            socklen_t,
        ) -> Size,
    >,
    /// sendmsg(2).
    pub sendmsg: Option<unsafe extern "C" fn(Userdata, c_int, *const msghdr, c_int) -> Size>,
    /// fcntl(2).
    pub fcntl: Option<unsafe extern "C" fn(Userdata, c_int, c_int, c_long) -> c_int>,
    /// ioctl(2).
    pub ioctl: Option<unsafe extern "C" fn(Userdata, c_int, c_ulong, *mut c_int) -> c_int>,
    /// close(2).
    pub close: Option<unsafe extern "C" fn(Userdata, c_int) -> c_int>,
    /// shutdown(2).
    pub shutdown: Option<unsafe extern "C" fn(Userdata, c_int, c_int) -> c_int>,
    /// getsockopt(2).
    pub getsockopt: Option<
        unsafe extern "C" fn(Userdata, c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int,
    >,
    /// setsockopt(2).
    pub setsockopt: Option<
        unsafe extern "C" fn(Userdata, c_int, c_int, c_int, *const c_void, socklen_t) -> c_int,
    >,
    /// poll(2).
    pub poll: Option<unsafe extern "C" fn(Userdata, *mut pollfd, nfds_t, c_int) -> c_int>,
    /// Hands an IP packet to the stack.
    pub netdev_send: Option<unsafe extern "C" fn(Userdata, *const c_void, usize) -> c_int>,
    /// Waits for an IP packet from the stack.
    pub netdev_receive:
        Option<unsafe extern "C" fn(Userdata, *mut c_void, *mut usize, *mut c_longlong) -> c_int>,
    /// usleep(3).
    pub usleep: Option<unsafe extern "C" fn(Userdata, c_uint) -> c_int>,
    /// gettimeofday(2).
    pub gettimeofday: Option<unsafe extern "C" fn(Userdata, *mut timeval, *mut timezone) -> c_int>,
    /// epoll_create(2).
    pub epoll_create: Option<unsafe extern "C" fn(Userdata, c_int) -> c_int>,
    /// epoll_ctl(2).
    pub epoll_ctl:
        Option<unsafe extern "C" fn(Userdata, c_int, c_int, c_int, *mut epoll_event) -> c_int>,
    /// epoll_wait(2).
    pub epoll_wait:
        Option<unsafe extern "C" fn(Userdata, c_int, *mut epoll_event, c_int, c_int) -> c_int>,
    /// pipe(2).
    pub pipe: Option<unsafe extern "C" fn(Userdata, *mut c_int) -> c_int>,
    /// splice(2).
    pub splice: Option<
        unsafe extern "C" fn(
            Userdata,
            c_int,
            *mut loff_t,
            c_int,
            *mut loff_t,
            usize,
            c_uint,
        ) -> c_int,
    >,
}
