//! Kernel maps: creating, reading, writing and walking them. A map lives as long as its
//! descriptor or a program that uses it.

use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::pin;
use crate::sys;

/// The kind of a map (`enum bpf_map_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum MapKind {
    /// Hash table.
    Hash = 1,
    /// Array; keys are `u32` indices.
    Array = 2,
    /// Hash table with one value for each CPU.
    PerCpuHash = 5,
    /// Array with one value for each CPU.
    PerCpuArray = 6,
    /// Hash table that evicts what was not used for longest.
    LruHash = 9,
    /// As `LruHash`, with one value for each CPU.
    LruPerCpuHash = 10,
    /// Longest prefix match; needs [`MapSpec::NO_PREALLOC`].
    LpmTrie = 11,
    /// Devices to redirect to, by index.
    DevMap = 14,
    /// CPUs to redirect to, by index.
    CpuMap = 16,
    /// AF_XDP sockets to redirect to, by index.
    XskMap = 17,
    /// Queue, first in first out; without keys.
    Queue = 22,
    /// Stack, last in first out; without keys.
    Stack = 23,
    /// Devices to redirect to, by hash.
    DevMapHash = 25,
    /// Ring of records from programs to user space; without keys and values.
    RingBuffer = 27,
}

impl MapKind {
    /// Whether a value is one value for each possible CPU.
    pub const fn is_per_cpu(self) -> bool {
        matches!(self, Self::PerCpuHash | Self::PerCpuArray | Self::LruPerCpuHash)
    }

    /// The kind that has this number, if this crate knows it.
    pub const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Hash,
            2 => Self::Array,
            5 => Self::PerCpuHash,
            6 => Self::PerCpuArray,
            9 => Self::LruHash,
            10 => Self::LruPerCpuHash,
            11 => Self::LpmTrie,
            14 => Self::DevMap,
            16 => Self::CpuMap,
            17 => Self::XskMap,
            22 => Self::Queue,
            23 => Self::Stack,
            25 => Self::DevMapHash,
            27 => Self::RingBuffer,
            _ => return None,
        })
    }
}

/// What a map shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapSpec<'a> {
    /// The name that `bpftool map` shows; at most 15 bytes are kept.
    pub name: &'a str,
    /// The kind.
    pub kind: MapKind,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value (of one CPU's, for per-CPU kinds).
    pub value_size: u32,
    /// The most entries, or the bytes of a ring buffer.
    pub max_entries: u32,
    /// Flags of `BPF_MAP_CREATE`.
    pub flags: u32,
}

impl MapSpec<'_> {
    /// `BPF_F_NO_PREALLOC`: entries take memory when they are made.
    pub const NO_PREALLOC: u32 = 1;
}

/// What an update does when the key is there or is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Update {
    /// Writes in either case.
    Any = 0,
    /// Fails with `EEXIST` if the key is there.
    Insert = 1,
    /// Fails with `ENOENT` if the key is not there.
    Replace = 2,
}

/// A map in the kernel, with keys and values as bytes.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    name: String,
    kind: MapKind,
    key_size: usize,
    value_len: usize,
    max_entries: u32,
}

impl Map {
    /// Creates a map.
    ///
    /// # Errors
    /// `EPERM` without the capability, `EINVAL` or `E2BIG` for sizes that the kind does not take.
    pub fn create(spec: &MapSpec<'_>) -> Result<Self> {
        let mut attr = sys::MapCreate {
            map_type: spec.kind as u32,
            key_size: spec.key_size,
            value_size: spec.value_size,
            max_entries: spec.max_entries,
            map_flags: spec.flags,
            map_name: sys::object_name(spec.name),
            ..Default::default()
        };
        // SAFETY: the attribute holds no address.
        let fd = unsafe { sys::bpf_fd(sys::MAP_CREATE, &mut attr) }.map_err(|errno| {
            let what = format!("creating the {:?} map {}", spec.kind, spec.name);
            Error::system(what, errno)
        })?;
        Self::of(fd, spec)
    }

    fn of(fd: OwnedFd, spec: &MapSpec<'_>) -> Result<Self> {
        let value_size = spec.value_size as usize;
        let value_len = if spec.kind.is_per_cpu() {
            value_size.next_multiple_of(8) * possible_cpus()?
        } else {
            value_size
        };
        Ok(Self {
            fd,
            name: spec.name.to_owned(),
            kind: spec.kind,
            key_size: spec.key_size as usize,
            value_len,
            max_entries: spec.max_entries,
        })
    }

    /// Opens a map that was pinned and checks that it is what `spec` says; flags and name may
    /// differ.
    ///
    /// # Errors
    /// [`Error::Pin`]; [`Error::Argument`] if it is another kind of object or of another shape.
    pub fn open(path: &Path, spec: &MapSpec<'_>) -> Result<Self> {
        let fd = pin::open(path, "map")?;
        // Any other BPF object has another layout of information, if it answers at all.
        let target = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        if !target.is_ok_and(|target| target.to_string_lossy().contains("bpf-map")) {
            return Err(Error::Argument(format!("{} is no BPF map", path.display())));
        }
        let raw: sys::RawMapInfo = sys::object_info(fd.as_fd())
            .map_err(|errno| Error::system(format!("asking about {}", path.display()), errno))?;
        let found = (raw.map_type, raw.key_size, raw.value_size, raw.max_entries);
        let wanted = (spec.kind as u32, spec.key_size, spec.value_size, spec.max_entries);
        if found != wanted {
            let kind = MapKind::from_number(raw.map_type);
            let kind = kind.map_or_else(|| raw.map_type.to_string(), |kind| format!("{kind:?}"));
            return Err(Error::Argument(format!(
                "the map at {} is {kind}, key {} bytes, value {} bytes, {} entries; {} was declared \
                 {:?}, key {} bytes, value {} bytes, {} entries",
                path.display(),
                raw.key_size,
                raw.value_size,
                raw.max_entries,
                spec.name,
                spec.kind,
                spec.key_size,
                spec.value_size,
                spec.max_entries,
            )));
        }
        Self::of(fd, spec)
    }

    /// Gives the map a name in a BPF file system, which keeps it.
    ///
    /// # Errors
    /// [`Error::Pin`].
    pub fn pin(&self, path: &Path) -> Result<()> {
        pin::pin(self.fd.as_fd(), path, "map")
    }

    /// The kernel's id of the map.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn id(&self) -> Result<u32> {
        let raw: sys::RawMapInfo = sys::object_info(self.fd.as_fd())
            .map_err(|errno| Error::system(format!("asking about map {}", self.name), errno))?;
        Ok(raw.id)
    }

    /// The name it was created with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its kind.
    pub fn kind(&self) -> MapKind {
        self.kind
    }

    /// The most entries it takes.
    pub fn max_entries(&self) -> u32 {
        self.max_entries
    }

    /// Bytes of a key.
    pub fn key_size(&self) -> usize {
        self.key_size
    }

    /// Bytes that a value takes in user space: for per-CPU kinds one value, rounded up to eight
    /// bytes, for each possible CPU.
    pub fn value_len(&self) -> usize {
        self.value_len
    }

    /// Copies the value of `key` into `value`; `false` if there is none.
    ///
    /// # Errors
    /// [`Error::Argument`] if a length is wrong, else what the kernel says.
    pub fn lookup(&self, key: &[u8], value: &mut [u8]) -> Result<bool> {
        self.check("key", key.len(), self.key_size)?;
        self.check("value", value.len(), self.value_len)?;
        let mut attr = self.element(key, value.as_mut_ptr() as u64, 0);
        // SAFETY: key and value have the lengths that the kernel reads and writes.
        match unsafe { sys::bpf(sys::MAP_LOOKUP_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(libc::ENOENT) => Ok(false),
            Err(errno) => Err(self.failed("looking up in", errno)),
        }
    }

    /// Writes the value of `key`.
    ///
    /// # Errors
    /// [`Error::Argument`] if a length is wrong; `E2BIG` if the map is full or the index too
    /// large, `EEXIST` and `ENOENT` as [`Update`] says.
    pub fn update(&self, key: &[u8], value: &[u8], mode: Update) -> Result<()> {
        self.check("key", key.len(), self.key_size)?;
        self.check("value", value.len(), self.value_len)?;
        let mut attr = self.element(key, value.as_ptr() as u64, mode as u64);
        // SAFETY: key and value have the lengths that the kernel reads.
        unsafe { sys::bpf(sys::MAP_UPDATE_ELEM, &mut attr) }
            .map_err(|errno| self.failed("updating", errno))?;
        Ok(())
    }

    /// Removes `key`; `false` if it was not there.
    ///
    /// # Errors
    /// [`Error::Argument`] if the length is wrong, `EINVAL` for kinds that keep all keys.
    pub fn delete(&self, key: &[u8]) -> Result<bool> {
        self.check("key", key.len(), self.key_size)?;
        let mut attr = self.element(key, 0, 0);
        // SAFETY: the key has the length that the kernel reads.
        match unsafe { sys::bpf(sys::MAP_DELETE_ELEM, &mut attr) } {
            Ok(_) => Ok(true),
            Err(libc::ENOENT) => Ok(false),
            Err(errno) => Err(self.failed("deleting from", errno)),
        }
    }

    /// Walks the keys. Keys that come or go meanwhile may be missed or seen twice, and the walk
    /// ends after [`Map::max_entries`] keys, so a busy map cannot hold it for ever.
    pub fn keys(&self) -> Keys<'_> {
        Keys { map: self, last: None, left: self.max_entries }
    }

    fn element(&self, key: &[u8], value: u64, flags: u64) -> sys::MapElement {
        sys::MapElement {
            map_fd: self.fd.as_raw_fd() as u32,
            reserved: 0,
            key: key.as_ptr() as u64,
            value,
            flags,
        }
    }

    fn check(&self, what: &str, got: usize, want: usize) -> Result<()> {
        if got == want {
            return Ok(());
        }
        let name = &self.name;
        Err(Error::Argument(format!("map {name} takes a {what} of {want} bytes, not {got}")))
    }

    fn failed(&self, action: &str, errno: i32) -> Error {
        Error::system(format!("{action} map {}", self.name), errno)
    }
}

impl AsFd for Map {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The keys of a map; see [`Map::keys`].
#[derive(Debug)]
pub struct Keys<'a> {
    map: &'a Map,
    last: Option<Vec<u8>>,
    left: u32,
}

impl Iterator for Keys<'_> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut key = vec![0; self.map.key_size];
        let mut attr = sys::MapElement {
            map_fd: self.map.fd.as_raw_fd() as u32,
            reserved: 0,
            key: self.last.as_ref().map_or(0, |last| last.as_ptr() as u64),
            value: key.as_mut_ptr() as u64,
            flags: 0,
        };
        // SAFETY: the last key, if any, and the room for the next have the map's key size.
        match unsafe { sys::bpf(sys::MAP_GET_NEXT_KEY, &mut attr) } {
            Ok(_) => {
                self.last = Some(key.clone());
                Some(Ok(key))
            }
            Err(errno) => {
                self.left = 0;
                (errno != libc::ENOENT).then(|| Err(self.map.failed("walking", errno)))
            }
        }
    }
}

/// Values that are the bytes they are made of.
///
/// # Safety
/// The type has no padding, and any bytes are a value of it.
pub unsafe trait Plain: Copy + Default {}

// SAFETY: integers have no padding and take any bytes.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: arrays of bytes are the bytes.
unsafe impl Plain for [u8; 4] {}
// SAFETY: as above.
unsafe impl Plain for [u8; 16] {}

fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: a `Plain` value is `size_of::<T>()` initialised bytes, borrowed as long as `value`.
    unsafe { std::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
}

fn bytes_of_mut<T: Plain>(value: &mut T) -> &mut [u8] {
    // SAFETY: as above, and any bytes written are a value of `T`.
    unsafe { std::slice::from_raw_parts_mut((&raw mut *value).cast(), size_of::<T>()) }
}

fn spec_of<'a, K: Plain, V: Plain>(name: &'a str, kind: MapKind, max_entries: u32) -> MapSpec<'a> {
    MapSpec {
        name,
        kind,
        key_size: size_of::<K>() as u32,
        value_size: size_of::<V>() as u32,
        max_entries,
        flags: 0,
    }
}

/// A map with keys of `K` and values of `V`.
#[derive(Debug)]
pub struct TypedMap<K, V> {
    map: Map,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> TypedMap<K, V> {
    /// Creates a map of a kind that has one value for a key.
    ///
    /// # Errors
    /// [`Error::Argument`] for per-CPU kinds, else as [`Map::create`].
    pub fn create(name: &str, kind: MapKind, max_entries: u32) -> Result<Self> {
        if kind.is_per_cpu() {
            return Err(Error::Argument(format!("map {name}: use PerCpuMap for {kind:?}")));
        }
        let map = Map::create(&spec_of::<K, V>(name, kind, max_entries))?;
        Ok(Self { map, types: PhantomData })
    }

    /// The value of `key`, if it is there.
    ///
    /// # Errors
    /// As [`Map::lookup`].
    pub fn get(&self, key: &K) -> Result<Option<V>> {
        let mut value = V::default();
        let found = self.map.lookup(bytes_of(key), bytes_of_mut(&mut value))?;
        Ok(found.then_some(value))
    }

    /// Writes the value of `key`.
    ///
    /// # Errors
    /// As [`Map::update`].
    pub fn set(&self, key: &K, value: &V) -> Result<()> {
        self.map.update(bytes_of(key), bytes_of(value), Update::Any)
    }

    /// Removes `key`; `false` if it was not there.
    ///
    /// # Errors
    /// As [`Map::delete`].
    pub fn remove(&self, key: &K) -> Result<bool> {
        self.map.delete(bytes_of(key))
    }

    /// All keys, as [`Map::keys`] walks them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn keys(&self) -> Result<Vec<K>> {
        let mut keys = Vec::new();
        for bytes in self.map.keys() {
            let mut key = K::default();
            bytes_of_mut(&mut key).copy_from_slice(&bytes?);
            keys.push(key);
        }
        Ok(keys)
    }

    /// The map as bytes.
    pub fn map(&self) -> &Map {
        &self.map
    }
}

impl<K, V> AsFd for TypedMap<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// A map with keys of `K` and one value of `V` for each possible CPU.
#[derive(Debug)]
pub struct PerCpuMap<K, V> {
    map: Map,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> PerCpuMap<K, V> {
    /// Creates a map of a per-CPU kind.
    ///
    /// # Errors
    /// [`Error::Argument`] for other kinds, else as [`Map::create`].
    pub fn create(name: &str, kind: MapKind, max_entries: u32) -> Result<Self> {
        if !kind.is_per_cpu() {
            return Err(Error::Argument(format!("map {name}: use TypedMap for {kind:?}")));
        }
        let map = Map::create(&spec_of::<K, V>(name, kind, max_entries))?;
        Ok(Self { map, types: PhantomData })
    }

    /// The value of `key` of every possible CPU, in the CPUs' order; `None` if it is not there.
    ///
    /// # Errors
    /// As [`Map::lookup`].
    pub fn get(&self, key: &K) -> Result<Option<Vec<V>>> {
        let mut bytes = vec![0; self.map.value_len()];
        if !self.map.lookup(bytes_of(key), &mut bytes)? {
            return Ok(None);
        }
        let stride = size_of::<V>().next_multiple_of(8);
        let values = bytes.chunks_exact(stride).map(|chunk| {
            let mut value = V::default();
            bytes_of_mut(&mut value).copy_from_slice(&chunk[..size_of::<V>()]);
            value
        });
        Ok(Some(values.collect()))
    }

    /// The map as bytes.
    pub fn map(&self) -> &Map {
        &self.map
    }
}

impl<K, V> AsFd for PerCpuMap<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// How many CPUs the kernel counts as possible; per-CPU values have that many parts.
///
/// # Errors
/// [`Error::Argument`] if sysfs is not mounted or says something that is no list of CPUs.
pub fn possible_cpus() -> Result<usize> {
    static COUNT: OnceLock<Option<usize>> = OnceLock::new();
    let count = COUNT.get_or_init(|| {
        std::fs::read_to_string(POSSIBLE_CPUS).ok().as_deref().and_then(count_cpu_list)
    });
    count.ok_or_else(|| {
        Error::Argument(format!("cannot tell the number of CPUs: {POSSIBLE_CPUS} is unreadable"))
    })
}

/// Counts a list such as `0-3,8`.
fn count_cpu_list(text: &str) -> Option<usize> {
    let mut count = 0usize;
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let first: usize = first.parse().ok()?;
        let last: usize = last.parse().ok()?;
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::count_cpu_list;

    #[test]
    fn cpu_list_is_counted() {
        assert_eq!(count_cpu_list("0\n"), Some(1));
        assert_eq!(count_cpu_list("0-1\n"), Some(2));
        assert_eq!(count_cpu_list("0-3,8,10-11"), Some(7));
        assert_eq!(count_cpu_list(""), None);
        assert_eq!(count_cpu_list("3-1"), None);
    }
}
