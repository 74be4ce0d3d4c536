//! The bpf(2) system call and the layouts it takes. Nothing here decides anything.
//!
//! Layouts follow `union bpf_attr` and the `bpf_*_info` structures of the kernel's
//! `include/uapi/linux/bpf.h`. They are written out because the headers of a machine are often
//! older than its kernel.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

pub(crate) const MAP_CREATE: u32 = 0;
pub(crate) const MAP_LOOKUP_ELEM: u32 = 1;
pub(crate) const MAP_UPDATE_ELEM: u32 = 2;
pub(crate) const MAP_DELETE_ELEM: u32 = 3;
pub(crate) const MAP_GET_NEXT_KEY: u32 = 4;
pub(crate) const PROG_LOAD: u32 = 5;
pub(crate) const OBJ_PIN: u32 = 6;
pub(crate) const OBJ_GET: u32 = 7;
pub(crate) const PROG_TEST_RUN: u32 = 10;
pub(crate) const PROG_GET_FD_BY_ID: u32 = 13;
pub(crate) const OBJ_GET_INFO_BY_FD: u32 = 15;
pub(crate) const LINK_CREATE: u32 = 28;
pub(crate) const LINK_UPDATE: u32 = 29;
pub(crate) const LINK_GET_FD_BY_ID: u32 = 30;
pub(crate) const LINK_GET_NEXT_ID: u32 = 31;
pub(crate) const ENABLE_STATS: u32 = 32;
pub(crate) const LINK_DETACH: u32 = 34;

/// `BPF_LINK_TYPE_XDP`.
pub(crate) const LINK_TYPE_XDP: u32 = 6;

pub(crate) const PROG_TYPE_SCHED_CLS: u32 = 3;
pub(crate) const PROG_TYPE_XDP: u32 = 6;
pub(crate) const ATTACH_TYPE_XDP: u32 = 37;
/// `BPF_TCX_INGRESS`.
pub(crate) const ATTACH_TYPE_TCX_INGRESS: u32 = 46;
/// `BPF_F_XDP_HAS_FRAGS`: the program can take frames that span several buffers.
pub(crate) const F_XDP_HAS_FRAGS: u32 = 1 << 5;
/// `BPF_F_REPLACE`: `LINK_UPDATE` succeeds only if the old program is the one named.
pub(crate) const F_REPLACE: u32 = 1 << 2;

/// Length of a kernel object's name, with its terminating zero (`BPF_OBJ_NAME_LEN`).
pub(crate) const NAME_LEN: usize = 16;

#[repr(C)]
#[derive(Default)]
pub(crate) struct MapCreate {
    pub map_type: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub inner_map_fd: u32,
    pub numa_node: u32,
    pub map_name: [u8; NAME_LEN],
}

/// `value` is the value of a lookup or an update, and the place for the next key when iterating.
#[repr(C)]
#[derive(Default)]
pub(crate) struct MapElement {
    pub map_fd: u32,
    pub reserved: u32,
    pub key: u64,
    pub value: u64,
    pub flags: u64,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct ProgLoad {
    pub prog_type: u32,
    pub insn_cnt: u32,
    pub insns: u64,
    pub license: u64,
    pub log_level: u32,
    pub log_size: u32,
    pub log_buf: u64,
    pub kern_version: u32,
    pub prog_flags: u32,
    pub prog_name: [u8; NAME_LEN],
    pub prog_ifindex: u32,
    pub expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct TestRunAttr {
    pub prog_fd: u32,
    pub retval: u32,
    pub data_size_in: u32,
    pub data_size_out: u32,
    pub data_in: u64,
    pub data_out: u64,
    pub repeat: u32,
    pub duration: u32,
    pub ctx_size_in: u32,
    pub ctx_size_out: u32,
    pub ctx_in: u64,
    pub ctx_out: u64,
    pub flags: u32,
    pub cpu: u32,
    pub batch_size: u32,
    pub reserved: u32,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct GetById {
    pub id: u32,
    pub next_id: u32,
    pub open_flags: u32,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct GetInfo {
    pub bpf_fd: u32,
    pub info_len: u32,
    pub info: u64,
}

/// For `OBJ_PIN` and `OBJ_GET`; the descriptor is 0 for the latter.
#[repr(C)]
#[derive(Default)]
pub(crate) struct ObjectPath {
    pub path: u64,
    pub bpf_fd: u32,
    pub file_flags: u32,
}

/// `kind` 0 is `BPF_STATS_RUN_TIME`.
#[repr(C)]
#[derive(Default)]
pub(crate) struct EnableStats {
    pub kind: u32,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct LinkCreate {
    pub prog_fd: u32,
    pub target_ifindex: u32,
    pub attach_type: u32,
    pub flags: u32,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct LinkUpdate {
    pub link_fd: u32,
    pub new_prog_fd: u32,
    pub flags: u32,
    pub old_prog_fd: u32,
}

#[repr(C)]
#[derive(Default)]
pub(crate) struct LinkDetach {
    pub link_fd: u32,
}

/// `struct bpf_prog_info` up to what is read here; the kernel fills as much as it is given room for.
#[repr(C)]
#[derive(Default)]
pub(crate) struct RawProgramInfo {
    pub prog_type: u32,
    pub id: u32,
    pub tag: [u8; 8],
    pub jited_len: u32,
    pub xlated_len: u32,
    pub jited_insns: u64,
    pub xlated_insns: u64,
    pub load_time: u64,
    pub created_by_uid: u32,
    pub nr_map_ids: u32,
    pub map_ids: u64,
    pub name: [u8; NAME_LEN],
    pub ifindex: u32,
    pub gpl_compatible: u32,
    pub netns_dev: u64,
    pub netns_ino: u64,
    pub nr_jited_ksyms: u32,
    pub nr_jited_func_lens: u32,
    pub jited_ksyms: u64,
    pub jited_func_lens: u64,
    pub btf_id: u32,
    pub func_info_rec_size: u32,
    pub func_info: u64,
    pub nr_func_info: u32,
    pub nr_line_info: u32,
    pub line_info: u64,
    pub jited_line_info: u64,
    pub nr_jited_line_info: u32,
    pub line_info_rec_size: u32,
    pub jited_line_info_rec_size: u32,
    pub nr_prog_tags: u32,
    pub prog_tags: u64,
    pub run_time_ns: u64,
    pub run_cnt: u64,
    pub recursion_misses: u64,
    pub verified_insns: u32,
    pub attach_btf_obj_id: u32,
}

/// `struct bpf_map_info`, as far as it is read here.
#[repr(C)]
#[derive(Default)]
pub(crate) struct RawMapInfo {
    pub map_type: u32,
    pub id: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub map_flags: u32,
    pub name: [u8; NAME_LEN],
}

/// `struct xdp_md`, which a test run takes and gives back.
#[repr(C)]
#[derive(Default)]
pub(crate) struct XdpContext {
    pub data: u32,
    pub data_end: u32,
    pub data_meta: u32,
    pub ingress_ifindex: u32,
    pub rx_queue_index: u32,
    pub egress_ifindex: u32,
}

/// `struct bpf_link_info` as it stands for an XDP link.
#[repr(C)]
#[derive(Default)]
pub(crate) struct RawLinkInfo {
    pub link_type: u32,
    pub id: u32,
    pub prog_id: u32,
    pub reserved: u32,
    pub ifindex: u32,
    pub reserved2: u32,
}

/// The attribute structures above: `repr(C)`, made of integers only, without padding.
///
/// # Safety
/// Every byte of the type must be initialised, and any bytes written by the kernel must be a
/// valid value of it.
pub(crate) unsafe trait Attr {}

macro_rules! attrs {
    ($($name:ty: $size:expr),* $(,)?) => {$(
        // SAFETY: repr(C), integers and byte arrays only; the assertion shows there is no padding.
        unsafe impl Attr for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

attrs! {
    MapCreate: 44,
    MapElement: 32,
    ProgLoad: 72,
    TestRunAttr: 80,
    GetById: 12,
    GetInfo: 16,
    LinkCreate: 16,
    LinkUpdate: 16,
    LinkDetach: 4,
    ObjectPath: 16,
    EnableStats: 4,
    RawProgramInfo: 224,
    RawLinkInfo: 24,
    RawMapInfo: 40,
    XdpContext: 24,
}

/// Calls bpf(2).
///
/// # Errors
/// The `errno` of the call.
///
/// # Safety
/// Every address stored in `attr` must be valid for what `command` does with it, for the length
/// that `attr` or the kernel object behind its descriptor states.
pub(crate) unsafe fn bpf<A: Attr>(command: u32, attr: &mut A) -> Result<i32, i32> {
    let address: *mut A = attr;
    // SAFETY: `address` points at `size_of::<A>()` initialised bytes that we may write; the rest
    // is the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, address, size_of::<A>() as u32) };
    if result < 0 { Err(errno()) } else { Ok(result as i32) }
}

/// As [`bpf`], for commands that return a new descriptor. The kernel sets close-on-exec on it.
///
/// # Errors
/// The `errno` of the call.
///
/// # Safety
/// As for [`bpf`].
pub(crate) unsafe fn bpf_fd<A: Attr>(command: u32, attr: &mut A) -> Result<OwnedFd, i32> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads the information about the object behind `fd` into a fresh `I`.
///
/// # Errors
/// The `errno` of the call.
pub(crate) fn object_info<I: Attr + Default>(fd: BorrowedFd<'_>) -> Result<I, i32> {
    let mut info = I::default();
    let mut attr = GetInfo {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: size_of::<I>() as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: `info` is `info_len` writable bytes, and any bytes are a value of it.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// The calling thread's `errno`.
pub(crate) fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A kernel object's name: letters, digits, `_` and `.`, cut to what fits; others become `_`.
pub(crate) fn object_name(name: &str) -> [u8; NAME_LEN] {
    let mut out = [0; NAME_LEN];
    for (slot, byte) in out[..NAME_LEN - 1].iter_mut().zip(name.bytes()) {
        let allowed = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        *slot = if allowed { byte } else { b'_' };
    }
    out
}

/// The text before the first zero.
pub(crate) fn name_text(name: &[u8]) -> String {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// The name of an interface in the caller's network namespace, or `interface #N`.
pub(crate) fn interface_name(ifindex: u32) -> String {
    existing_interface(ifindex).unwrap_or_else(|| format!("interface #{ifindex}"))
}

/// The name of an interface in the caller's network namespace, if it is there.
pub(crate) fn existing_interface(ifindex: u32) -> Option<String> {
    let mut name = [0u8; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the IF_NAMESIZE bytes that if_indextoname(3) may write.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr().cast()) };
    (!found.is_null()).then(|| name_text(&name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_name_is_cut_and_cleaned() {
        assert_eq!(&object_name("mill race-é")[..12], b"mill_race___");
        assert_eq!(object_name("0123456789abcdefgh"), *b"0123456789abcde\0");
        assert_eq!(name_text(&object_name("xdp_pass")), "xdp_pass");
    }

    #[test]
    fn interface_name_falls_back_to_the_index() {
        assert_eq!(interface_name(u32::MAX), "interface #4294967295");
    }
}
