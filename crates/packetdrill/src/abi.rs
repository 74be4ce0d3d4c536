//! The C boundary: what stands in packetdrill's table of calls.
//!
//! Every function takes the world as its first argument, returns what the system call would
//! return, and sets `errno`. All pointers come from packetdrill, which promises of them what
//! POSIX asks for; null is `EFAULT`. A panic ends the process here.

use core::ffi::{c_char, c_int, c_long, c_longlong, c_short, c_uint, c_ulong, c_void};
use core::time::Duration;
use std::ffi::CStr;
use std::os::fd::RawFd;
use std::sync::Arc;

use libc::{
    epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, sockaddr, socklen_t, timeval, timezone,
};

use crate::address::{self, Address};
use crate::errno::{Errno, Result};
use crate::fast_open::Writing;
use crate::interface::{Interface, Size, Userdata};
use crate::memory::{
    copy_in, copy_out, gather, read_address, room, scatter, write_address, write_control,
};
use crate::shared::{Outcome, Patience, Shared};
use crate::world::World;
use crate::{flags, interpose, pipe};

/// What packetdrill looks up and calls: makes a world and fills the table. Flags that make no sense
/// end the process, because the entry point has no way to refuse.
///
/// # Safety
/// `options` is null or a C string, and `interface` is valid for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(
    options: *const c_char,
    interface: *mut Interface,
) {
    let text = if options.is_null() {
        String::new()
    } else {
        // SAFETY: not null, so the caller promises a C string.
        unsafe { CStr::from_ptr(options) }.to_string_lossy().into_owned()
    };
    let options = flags::parse(&text).unwrap_or_else(|reason| {
        eprintln!("millrace: {reason}");
        std::process::exit(2);
    });
    let shared = Arc::new(Shared::new(World::new(options)));
    interpose::register(&shared);
    let table = Interface {
        userdata: Arc::into_raw(shared).cast_mut().cast(),
        free: Some(free),
        socket: Some(socket),
        bind: Some(bind),
        listen: Some(listen),
        accept: Some(accept),
        connect: Some(connect),
        read: Some(read),
        readv: Some(readv),
        recv: Some(recv),
        recvfrom: Some(recvfrom),
        recvmsg: Some(recvmsg),
        write: Some(write),
        writev: Some(writev),
        send: Some(send_flags),
        sendto: Some(sendto),
        sendmsg: Some(sendmsg),
        fcntl: Some(fcntl),
        ioctl: Some(ioctl),
        close: Some(close),
        shutdown: Some(shutdown),
        getsockopt: Some(getsockopt),
        setsockopt: Some(setsockopt),
        poll: Some(poll),
        netdev_send: Some(netdev_send),
        netdev_receive: Some(netdev_receive),
        usleep: Some(usleep),
        gettimeofday: Some(gettimeofday),
        epoll_create: Some(epoll_create),
        epoll_ctl: Some(epoll_ctl),
        epoll_wait: Some(epoll_wait),
        pipe: Some(make_pipe),
        splice: Some(splice),
    };
    // SAFETY: the caller promises that it may be written.
    unsafe { interface.write(table) };
}

/// The world of a call.
///
/// # Safety
/// `userdata` is what [`packetdrill_interface_init`] wrote, and was not freed.
unsafe fn world<'a>(userdata: Userdata) -> &'a Shared {
    // SAFETY: the caller's promise; the count that `into_raw` took keeps it alive.
    unsafe { &*userdata.cast::<Shared>() }
}

/// Sets `errno` and returns -1.
pub(crate) fn fail(Errno(number): Errno) -> c_int {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() = number };
    -1
}

fn status(result: Result<()>) -> c_int {
    result.map_or_else(fail, |()| 0)
}

fn number(result: Result<c_int>) -> c_int {
    result.unwrap_or_else(fail)
}

fn value(result: Result<Outcome>) -> Size {
    result.map_or_else(|error| fail(error) as Size, |outcome| outcome.value as Size)
}

fn patience(waits: bool) -> Patience {
    if waits { Patience::Forever } else { Patience::None }
}

/// poll(2) and epoll_wait(2): milliseconds, negative for ever.
fn timeout(milliseconds: c_int) -> Patience {
    match u64::try_from(milliseconds) {
        Ok(0) => Patience::None,
        Ok(milliseconds) => Patience::For(Duration::from_millis(milliseconds)),
        Err(_) => Patience::Forever,
    }
}

/// Sends bytes that have been copied.
pub(crate) fn send(
    shared: &Shared,
    number: RawFd,
    data: Vec<u8>,
    flags: c_int,
    address: Option<Address>,
) -> Result<Outcome> {
    let waits = shared.lock().waits(number, flags);
    let mut writing = Writing::default();
    shared.call(
        patience(waits),
        Box::new(move |world, last| {
            world.send_to(number, &data, flags, address, &mut writing, last)
        }),
    )
}

fn receive(shared: &Shared, number: RawFd, most: usize, flags: c_int) -> Result<Outcome> {
    let waits = shared.lock().waits(number, flags);
    shared.call(
        patience(waits),
        Box::new(move |world, last| world.receive_from(number, most, flags, last)),
    )
}

/// Receives into one buffer.
///
/// # Safety
/// `data` is null or valid for `count` bytes.
unsafe fn receive_into(
    shared: &Shared,
    number: RawFd,
    data: *mut c_void,
    count: usize,
    flags: c_int,
) -> Result<Outcome> {
    // Nothing is taken out for a caller that cannot have it.
    let peek = if data.is_null() { flags | libc::MSG_PEEK } else { flags };
    let outcome = receive(shared, number, count, peek)?;
    if data.is_null() && !outcome.bytes.is_empty() {
        return Err(Errno(libc::EFAULT));
    }
    // SAFETY: the caller's promise, and no more than `count` bytes were asked for.
    unsafe { copy_out(&outcome.bytes, data) };
    Ok(outcome)
}

/// Looks an option up, for packetdrill's table and for the C library's function.
///
/// # Safety
/// `length` is null or valid, and `place` null or valid for what it says.
pub(crate) unsafe fn get_option(
    shared: &Shared,
    number: RawFd,
    level: c_int,
    name: c_int,
    place: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    if place.is_null() || length.is_null() {
        return fail(Errno(libc::EFAULT));
    }
    // SAFETY: not null, so valid.
    let most = unsafe { *length } as usize;
    match shared.now(|world| world.get_option(number, level, name, most)) {
        Ok(bytes) => {
            // SAFETY: no more than the room that was told.
            unsafe {
                copy_out(&bytes, place);
                *length = bytes.len() as socklen_t;
            }
            0
        }
        Err(error) => fail(error),
    }
}

// SAFETY of everything below: packetdrill passes the `userdata` of the table, and pointers that
// are null or as POSIX asks.

unsafe extern "C" fn free(userdata: Userdata) {
    // SAFETY: see above; `free` is the last call, so the count may be taken back.
    let shared = unsafe { Arc::from_raw(userdata.cast::<Shared>().cast_const()) };
    interpose::forget(&shared);
}

unsafe extern "C" fn socket(
    userdata: Userdata,
    domain: c_int,
    kind: c_int,
    protocol: c_int,
) -> c_int {
    // SAFETY: see above.
    let shared = unsafe { world(userdata) };
    number(shared.now(|world| world.socket(domain, kind, protocol)))
}

unsafe extern "C" fn bind(
    userdata: Userdata,
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    // SAFETY: see above.
    let (shared, address) = unsafe { (world(userdata), read_address(address, length)) };
    status(address.and_then(|address| shared.now(|world| world.bind(fd, address))))
}

unsafe extern "C" fn listen(userdata: Userdata, fd: c_int, backlog: c_int) -> c_int {
    // SAFETY: see above.
    status(unsafe { world(userdata) }.now(|world| world.listen(fd, backlog)))
}

unsafe extern "C" fn accept(
    userdata: Userdata,
    fd: c_int,
    address: *mut sockaddr,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: see above.
    let shared = unsafe { world(userdata) };
    let waits = shared.lock().waits(fd, 0);
    let result = shared.call(patience(waits), Box::new(move |world, last| world.accept(fd, last)));
    match result {
        Ok(outcome) => {
            let number = outcome.value as c_int;
            if let Some(remote) = outcome.address {
                let v6 = shared.lock().descriptors.socket(number).is_ok_and(|socket| socket.v6);
                // SAFETY: see above.
                unsafe { write_address(&address::write(remote, v6), address, length) };
            }
            number
        }
        Err(error) => fail(error),
    }
}

unsafe extern "C" fn connect(
    userdata: Userdata,
    fd: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> c_int {
    // SAFETY: see above.
    let (shared, address) = unsafe { (world(userdata), read_address(address, length)) };
    let address = match address {
        Ok(address) => address,
        Err(error) => return fail(error),
    };
    let waits = shared.lock().waits(fd, 0);
    let mut begun = false;
    value(shared.call(
        patience(waits),
        Box::new(move |world, last| world.connect(fd, address, &mut begun, last)),
    )) as c_int
}

unsafe extern "C" fn read(userdata: Userdata, fd: c_int, data: *mut c_void, count: usize) -> Size {
    // SAFETY: see above.
    value(unsafe { receive_into(world(userdata), fd, data, count, 0) })
}

unsafe extern "C" fn readv(
    userdata: Userdata,
    fd: c_int,
    array: *const iovec,
    count: c_int,
) -> Size {
    let Ok(count) = usize::try_from(count) else { return fail(Errno(libc::EINVAL)) as Size };
    // SAFETY: see above.
    value(unsafe { receive_pieces(world(userdata), fd, array, count, 0) })
}

/// Receives into an array of pieces.
///
/// # Safety
/// As [`scatter`].
unsafe fn receive_pieces(
    shared: &Shared,
    number: RawFd,
    array: *const iovec,
    count: usize,
    flags: c_int,
) -> Result<Outcome> {
    // SAFETY: the caller's promise.
    let most = unsafe { room(array, count) }?;
    let outcome = receive(shared, number, most, flags)?;
    // SAFETY: the caller's promise.
    unsafe { scatter(&outcome.bytes, array, count) }?;
    Ok(outcome)
}

unsafe extern "C" fn recv(
    userdata: Userdata,
    fd: c_int,
    data: *mut c_void,
    count: usize,
    flags: c_int,
) -> Size {
    // SAFETY: see above.
    value(unsafe { receive_into(world(userdata), fd, data, count, flags) })
}

unsafe extern "C" fn recvfrom(
    userdata: Userdata,
    fd: c_int,
    data: *mut c_void,
    count: usize,
    flags: c_int,
    _address: *mut sockaddr,
    length: *mut socklen_t,
) -> Size {
    // SAFETY: see above.
    let result = unsafe { receive_into(world(userdata), fd, data, count, flags) };
    if result.is_ok() && !length.is_null() {
        // A stream names no sender with its bytes.
        // SAFETY: see above.
        unsafe { *length = 0 };
    }
    value(result)
}

unsafe extern "C" fn recvmsg(
    userdata: Userdata,
    fd: c_int,
    message: *mut msghdr,
    flags: c_int,
) -> Size {
    // SAFETY: see above.
    let Some(message) = (unsafe { message.as_mut() }) else {
        return fail(Errno(libc::EFAULT)) as Size;
    };
    let (array, count) = (message.msg_iov, message.msg_iovlen);
    // SAFETY: see above.
    let result = unsafe { receive_pieces(world(userdata), fd, array, count, flags) };
    if let Ok(outcome) = &result {
        message.msg_namelen = 0;
        message.msg_flags = outcome.message_flags;
        // SAFETY: see above.
        unsafe { write_control(message, &outcome.control) };
    }
    value(result)
}

unsafe extern "C" fn write(
    userdata: Userdata,
    fd: c_int,
    data: *const c_void,
    count: usize,
) -> Size {
    // SAFETY: see above.
    unsafe { send_flags(userdata, fd, data, count, 0) }
}

unsafe extern "C" fn writev(
    userdata: Userdata,
    fd: c_int,
    array: *const iovec,
    count: c_int,
) -> Size {
    let Ok(count) = usize::try_from(count) else { return fail(Errno(libc::EINVAL)) as Size };
    // SAFETY: see above.
    let (shared, bytes) = unsafe { (world(userdata), gather(array, count)) };
    value(bytes.and_then(|bytes| send(shared, fd, bytes, 0, None)))
}

unsafe extern "C" fn send_flags(
    userdata: Userdata,
    fd: c_int,
    data: *const c_void,
    count: usize,
    flags: c_int,
) -> Size {
    // SAFETY: see above.
    let (shared, bytes) = unsafe { (world(userdata), copy_in(data, count)) };
    value(bytes.and_then(|bytes| send(shared, fd, bytes, flags, None)))
}

unsafe extern "C" fn sendto(
    userdata: Userdata,
    fd: c_int,
    data: *const c_void,
    count: usize,
    flags: c_int,
    address: *const sockaddr,
    length: socklen_t,
) -> Size {
    // SAFETY: see above. Only Fast Open looks at the address of a stream.
    let (shared, bytes, address) =
        unsafe { (world(userdata), copy_in(data, count), read_address(address, length)) };
    value(bytes.and_then(|bytes| send(shared, fd, bytes, flags, address.ok())))
}

unsafe extern "C" fn sendmsg(
    userdata: Userdata,
    fd: c_int,
    message: *const msghdr,
    flags: c_int,
) -> Size {
    // SAFETY: see above.
    let Some(message) = (unsafe { message.as_ref() }) else {
        return fail(Errno(libc::EFAULT)) as Size;
    };
    if message.msg_controllen > 0 {
        // No control message means anything to this stack.
        return fail(Errno(libc::EINVAL)) as Size;
    }
    // SAFETY: see above.
    let (shared, bytes) = unsafe { (world(userdata), gather(message.msg_iov, message.msg_iovlen)) };
    // SAFETY: see above.
    let address = unsafe { read_address(message.msg_name.cast(), message.msg_namelen) };
    value(bytes.and_then(|bytes| send(shared, fd, bytes, flags, address.ok())))
}

unsafe extern "C" fn fcntl(
    userdata: Userdata,
    fd: c_int,
    command: c_int,
    argument: c_long,
) -> c_int {
    // SAFETY: see above. Commands without an argument do not look at it.
    number(unsafe { world(userdata) }.now(|world| world.fcntl(fd, command, argument as c_int)))
}

unsafe extern "C" fn ioctl(
    userdata: Userdata,
    fd: c_int,
    request: c_ulong,
    place: *mut c_int,
) -> c_int {
    // packetdrill passes the request as an int, so its upper half may be a sign.
    let request = request & 0xffff_ffff;
    // SAFETY: see above.
    match unsafe { world(userdata) }.now(|world| world.ioctl(fd, request)) {
        Ok(_) if place.is_null() => fail(Errno(libc::EFAULT)),
        Ok(answer) => {
            // SAFETY: each of the requests that are answered takes a pointer to an int.
            unsafe { *place = answer };
            0
        }
        Err(error) => fail(error),
    }
}

unsafe extern "C" fn close(userdata: Userdata, fd: c_int) -> c_int {
    // SAFETY: see above.
    status(unsafe { world(userdata) }.now(|world| world.close(fd)))
}

unsafe extern "C" fn shutdown(userdata: Userdata, fd: c_int, how: c_int) -> c_int {
    // SAFETY: see above.
    status(unsafe { world(userdata) }.now(|world| world.shutdown(fd, how)))
}

unsafe extern "C" fn getsockopt(
    userdata: Userdata,
    fd: c_int,
    level: c_int,
    name: c_int,
    place: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    // SAFETY: see above.
    unsafe { get_option(world(userdata), fd, level, name, place, length) }
}

unsafe extern "C" fn setsockopt(
    userdata: Userdata,
    fd: c_int,
    level: c_int,
    name: c_int,
    data: *const c_void,
    length: socklen_t,
) -> c_int {
    // SAFETY: see above.
    let (shared, bytes) = unsafe { (world(userdata), copy_in(data, length as usize)) };
    status(bytes.and_then(|bytes| shared.now(|world| world.set_option(fd, level, name, &bytes))))
}

unsafe extern "C" fn poll(
    userdata: Userdata,
    array: *mut pollfd,
    count: nfds_t,
    milliseconds: c_int,
) -> c_int {
    if count > 0 && array.is_null() {
        return fail(Errno(libc::EFAULT));
    }
    let entries: &mut [pollfd] = if count == 0 {
        &mut []
    } else {
        // SAFETY: see above.
        unsafe { core::slice::from_raw_parts_mut(array, count as usize) }
    };
    let asked: Vec<(RawFd, c_short)> =
        entries.iter().map(|entry| (entry.fd, entry.events)).collect();
    // SAFETY: see above.
    let result = unsafe { world(userdata) }
        .call(timeout(milliseconds), Box::new(move |world, last| world.poll(&asked, last)));
    match result {
        Ok(outcome) => {
            for (entry, answer) in entries.iter_mut().zip(outcome.bytes.chunks_exact(2)) {
                entry.revents = c_short::from_ne_bytes([answer[0], answer[1]]);
            }
            outcome.value as c_int
        }
        Err(error) => fail(error),
    }
}

unsafe extern "C" fn netdev_send(userdata: Userdata, data: *const c_void, count: usize) -> c_int {
    // SAFETY: see above.
    let (shared, bytes) = unsafe { (world(userdata), copy_in(data, count)) };
    status(bytes.and_then(|bytes| shared.now(|world| world.inject(&bytes))))
}

unsafe extern "C" fn netdev_receive(
    userdata: Userdata,
    data: *mut c_void,
    count: *mut usize,
    time: *mut c_longlong,
) -> c_int {
    // SAFETY: see above.
    let shared = unsafe { world(userdata) };
    // SAFETY: packetdrill's own buffer, counter and clock.
    let (count, time) = unsafe { (&mut *count, &mut *time) };
    // An error would only be asked again; no bytes are what ends the script with one.
    let (when, mut packet) = shared.next_packet().unwrap_or_else(|| {
        let now = shared.lock().now;
        eprintln!(
            "millrace: the stack sends nothing any more; nothing is due {:.6} s after the start",
            now.as_micros() as f64 / 1e6
        );
        (now, Vec::new())
    });
    packet.truncate(*count);
    *count = packet.len();
    *time = when.as_micros() as c_longlong;
    // SAFETY: no more than the room that was told.
    unsafe { copy_out(&packet, data) };
    0
}

unsafe extern "C" fn usleep(userdata: Userdata, micros: c_uint) -> c_int {
    // SAFETY: see above.
    unsafe { world(userdata) }.sleep(Duration::from_micros(micros.into()));
    0
}

unsafe extern "C" fn gettimeofday(
    userdata: Userdata,
    time: *mut timeval,
    _zone: *mut timezone,
) -> c_int {
    // SAFETY: see above.
    let micros = unsafe { world(userdata) }.read_clock().as_micros();
    // SAFETY: see above.
    if let Some(time) = unsafe { time.as_mut() } {
        time.tv_sec = (micros / 1_000_000) as libc::time_t;
        time.tv_usec = (micros % 1_000_000) as libc::suseconds_t;
    }
    0
}

unsafe extern "C" fn epoll_create(userdata: Userdata, size: c_int) -> c_int {
    // SAFETY: see above.
    number(unsafe { world(userdata) }.now(|world| world.epoll_create(size)))
}

unsafe extern "C" fn epoll_ctl(
    userdata: Userdata,
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    // SAFETY: see above.
    let (shared, event) = unsafe { (world(userdata), event.as_ref()) };
    let event = event.map(|event| (event.events, event.u64));
    status(shared.now(|world| world.epoll_ctl(epoll, operation, fd, event)))
}

unsafe extern "C" fn epoll_wait(
    userdata: Userdata,
    epoll: c_int,
    events: *mut epoll_event,
    most: c_int,
    milliseconds: c_int,
) -> c_int {
    let most = match usize::try_from(most) {
        Ok(most) if most > 0 => most,
        _ => return fail(Errno(libc::EINVAL)),
    };
    if events.is_null() {
        return fail(Errno(libc::EFAULT));
    }
    // SAFETY: see above.
    let result = unsafe { world(userdata) }.call(
        timeout(milliseconds),
        Box::new(move |world, last| world.epoll_wait(epoll, most, last)),
    );
    match result {
        Ok(outcome) => {
            for (index, entry) in outcome.bytes.chunks_exact(12).enumerate() {
                let (mask, data) = entry.split_at(4);
                let event = epoll_event {
                    events: mask.try_into().map_or(0, u32::from_ne_bytes),
                    u64: data.try_into().map_or(0, u64::from_ne_bytes),
                };
                // SAFETY: no more than `most` entries were asked for.
                unsafe { events.add(index).write_unaligned(event) };
            }
            outcome.value as c_int
        }
        Err(error) => fail(error),
    }
}

unsafe extern "C" fn make_pipe(userdata: Userdata, place: *mut c_int) -> c_int {
    if place.is_null() {
        return fail(Errno(libc::EFAULT));
    }
    let (reads, writes) = pipe::pair();
    // SAFETY: see above.
    let numbers = unsafe { world(userdata) }.now(|world| {
        use crate::descriptor::Object::Pipe;
        Ok([world.descriptors.insert(Pipe(reads))?, world.descriptors.insert(Pipe(writes))?])
    });
    match numbers {
        Ok(numbers) => {
            // SAFETY: pipe(2): an array of two.
            unsafe { place.cast::<[c_int; 2]>().write_unaligned(numbers) };
            0
        }
        Err(error) => fail(error),
    }
}

unsafe extern "C" fn splice(
    userdata: Userdata,
    from: c_int,
    _from_offset: *mut loff_t,
    to: c_int,
    _to_offset: *mut loff_t,
    count: usize,
    flags: c_uint,
) -> c_int {
    // SAFETY: see above. Neither a socket nor a pipe has offsets.
    let shared = unsafe { world(userdata) };
    let nonblocking = flags & libc::SPLICE_F_NONBLOCK != 0;
    let waits = !nonblocking && {
        let world = shared.lock();
        world.waits(from, 0) || world.waits(to, 0)
    };
    value(
        shared.call(
            patience(waits),
            Box::new(move |world, last| world.splice(from, to, count, last)),
        ),
    ) as c_int
}
