//! The channel as Python sees it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use millrace_channel::{Address, Config, DhcpConfig, ListenOptions, Route, Wake};
use millrace_frames::Hugepages;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use crate::completion;
use crate::errors::to_python;
use crate::handle::{Handle, timeout};
use crate::options;
use crate::setting;
use crate::shared::Shared;
use crate::whole::{self, whole_or_none};

/// How long the main thread may wait before it looks for signals by itself. A signal ends a sleep
/// at once, but not one that begins in the instant after it was delivered, and not a spin.
const SIGNAL_CHECK: Duration = Duration::from_millis(50);

/// One thread's TCP/IP stack on a port, and what happens to it in batches.
///
///     with millrace.Channel("af_xdp:eth1", address="192.0.2.2/24") as channel:
///         channel.listen(80)
///         for batch in channel:
///             for done in batch:
///                 if done.kind is millrace.READ:
///                     done.handle.write(answer(done.data))
///
/// `port` is KIND:NAME with a kind of PORT_KINDS, or an interface's name alone for the best kind
/// that it allows. `address` is the channel's own, with the length of its network's prefix, or a
/// sequence of such, of both families; "dhcp" asks a DHCP server for one, tells it `host_name`, and
/// waits for at most `dhcp_timeout` seconds; "slaac" listens to IPv6 routers, makes addresses from
/// what they advertise, and waits for one for at most `slaac_timeout` seconds. `gateway` is where
/// packets for other networks go, one or one of each family. `wait` says what to do while nothing happens: "sleep", "spin", or a number of
/// microseconds to spin before sleeping. `watch` shows counters, tables and frames to `millrace top`
/// and its like in other processes of the same user and root; by default yes, unless the environment
/// has MILLRACE_WATCH=0. Further keywords set bounds of the stack (times in
/// seconds): connections, send_buffer, receive_buffer, retries, syn_retries, time_wait and others.
///
/// A child that os.fork() makes cannot use it (PermissionError) and undoes nothing by closing it.
///
/// Raises ValueError for what makes no sense, OSError when the port cannot be opened.
#[pyclass(frozen, weakref, module = "millrace._native")]
pub(crate) struct Channel {
    shared: Arc<Shared>,
}

#[pymethods]
impl Channel {
    #[new]
    #[pyo3(signature = (
        port, address, *, gateway=None, mac=None, mtu=None, wait=None, frames=16384,
        frame_size=None, hugepages=None, write_queue=1048576, read_budget=262144, no_delay=true, host_name=None,
        dhcp_timeout=30.0, slaac_timeout=10.0, watch=None, **settings
    ))]
    #[allow(clippy::too_many_arguments, reason = "they are keywords in Python")]
    fn new(
        py: Python<'_>,
        port: &str,
        address: &Bound<'_, PyAny>,
        gateway: Option<&Bound<'_, PyAny>>,
        mac: Option<&str>,
        #[pyo3(from_py_with = whole::number_or_none)] mtu: Option<i128>,
        wait: Option<&Bound<'_, PyAny>>,
        #[pyo3(from_py_with = whole::number)] frames: i128,
        #[pyo3(from_py_with = whole::number_or_none)] frame_size: Option<i128>,
        hugepages: Option<bool>,
        #[pyo3(from_py_with = whole::number)] write_queue: i128,
        #[pyo3(from_py_with = whole::number)] read_budget: i128,
        no_delay: bool,
        host_name: Option<&str>,
        dhcp_timeout: f64,
        slaac_timeout: f64,
        watch: Option<bool>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Channel> {
        let Own { addresses, dhcp, slaac } = own(address)?;
        if addresses.is_empty() && !dhcp && !slaac {
            return Err(PyValueError::new_err(
                "a channel needs an address of its own, such as 192.0.2.2/24 or 2001:db8::2/64, or \
                 \"dhcp\" or \"slaac\"",
            ));
        }
        let slaac_timeout = options::duration("slaac_timeout", slaac_timeout)?;
        let dhcp_timeout = options::duration("dhcp_timeout", dhcp_timeout)?;
        let host_name = host_name.map(str::to_owned);
        let mut config = Config::by_dhcp(DhcpConfig { host_name, ..DhcpConfig::default() });
        config.addresses = addresses;
        if !dhcp {
            config.dhcp = None;
        }
        config.slaac = slaac;
        config.gateways = gateway.map_or(Ok(Vec::new()), gateways)?;
        config.mac = mac
            .map(|mac| {
                mac.parse().map_err(|_| {
                    PyValueError::new_err(format!("{mac:?} is no address like 02:00:00:00:00:01"))
                })
            })
            .transpose()?;
        config.mtu = whole_or_none("mtu", mtu)?;
        config.wait = wait.map_or(Ok(config.wait), options::wait)?;
        config.frames = whole::whole("frames", frames)?;
        config.frame_size = whole_or_none("frame_size", frame_size)?;
        config.hugepages = match hugepages {
            None => Hugepages::Prefer,
            Some(true) => Hugepages::Require,
            Some(false) => Hugepages::Never,
        };
        config.write_queue = whole::whole("write_queue", write_queue)?;
        config.read_budget = whole::whole("read_budget", read_budget)?;
        config.no_delay = no_delay;
        config.watch = watch.unwrap_or(config.watch);
        options::settings(&mut config, settings)?;
        let mut channel =
            py.detach(|| millrace_channel::Channel::open(port, config)).map_err(to_python)?;
        if dhcp {
            wait_for_lease(py, &mut channel, port, dhcp_timeout)?;
        }
        if slaac {
            wait_for_router(py, &mut channel, port, slaac_timeout)?;
        }
        Ok(Channel { shared: Arc::new(Shared::new(py, channel)?) })
    }

    /// Take TCP connections to `port`, at `address` or at any address of the channel's: "0.0.0.0"
    /// is any of IPv4, "::" any of both families, or with `v6_only` of IPv6. ACCEPTED tells of
    /// each. At most `backlog` of them wait between two turns, and at most `syn_queue`
    /// are half-open before SYNs are answered with cookies. With `fast_open` (RFC 7413) as many
    /// as it says may be told of, with the data of their SYN, before their handshake has ended;
    /// with `defer_accept`, a number of seconds, each is told of when its first data has come, or
    /// this time is over.
    ///
    /// Raises OSError: EADDRINUSE, EADDRNOTAVAIL for an address that is not the channel's.
    #[pyo3(signature = (
        port, address="", *, backlog=1024, syn_queue=None, fast_open=0, defer_accept=None,
        v6_only=false
    ))]
    #[expect(clippy::too_many_arguments, reason = "keywords of Python")]
    fn listen(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = whole::number)] port: i128,
        address: &str,
        #[pyo3(from_py_with = whole::number)] backlog: i128,
        #[pyo3(from_py_with = whole::number_or_none)] syn_queue: Option<i128>,
        #[pyo3(from_py_with = whole::number)] fast_open: i128,
        defer_accept: Option<f64>,
        v6_only: bool,
    ) -> PyResult<Py<Handle>> {
        let local = SocketAddr::new(options::ip(address)?, options::port(port)?);
        let defer_accept =
            defer_accept.map(|time| options::duration("defer_accept", time)).transpose()?;
        let options = ListenOptions {
            backlog: whole::whole("backlog", backlog)?,
            syn_queue: whole_or_none("syn_queue", syn_queue)?,
            fast_open: whole::whole("fast_open", fast_open)?,
            defer_accept,
            v6_only,
        };
        self.open(py, |channel| channel.listen_with(local, options))
    }

    /// Open a TCP connection to `remote`, a (host, port). CONNECTED or CLOSED tells what came of
    /// it; what is written before is sent after. `local` may fix our end. `data` is written at
    /// once and goes with the SYN where the server is known to take it (Fast Open, RFC 7413): only
    /// for requests that may be repeated, for the server may see them twice.
    ///
    /// Raises OSError: ENETUNREACH without a route, ENOBUFS when all connections are in use,
    /// EADDRINUSE when a listener, or a connection to `remote`, one in TIME-WAIT too, has the port
    /// of `local`, EADDRNOTAVAIL for an address that is not the channel's and when no port is free.
    #[pyo3(signature = (remote, *, local=None, data=None))]
    fn connect(
        &self,
        py: Python<'_>,
        remote: &Bound<'_, PyTuple>,
        local: Option<&Bound<'_, PyTuple>>,
        data: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<Handle>> {
        let remote = options::socket_address(remote)?;
        let local = local.map(options::socket_address).transpose()?;
        let Some(data) = data else {
            return self.open(py, |channel| channel.connect(remote, local));
        };
        let handle = self.open(py, |channel| {
            channel.connect_with_data(remote, local, &[]).map(|(handle, _)| handle)
        })?;
        if let Err(error) = handle.get().write(data) {
            handle.get().close()?;
            return Err(error);
        }
        Ok(handle)
    }

    /// Open a UDP socket on `port` (0: one that is free). DATAGRAM tells of what comes in. With a
    /// `peer`, a (host, port), only its datagrams are taken, and send() needs no address.
    ///
    /// Raises OSError: EADDRINUSE, EADDRNOTAVAIL.
    #[pyo3(signature = (port=0, address="", *, peer=None))]
    fn datagram(
        &self,
        py: Python<'_>,
        #[pyo3(from_py_with = whole::number)] port: i128,
        address: &str,
        peer: Option<&Bound<'_, PyTuple>>,
    ) -> PyResult<Py<Handle>> {
        let local = SocketAddr::new(options::ip(address)?, options::port(port)?);
        let peer = peer.map(options::socket_address).transpose()?;
        self.open(py, |channel| {
            let handle = channel.bind_datagram(local)?;
            if let Some(peer) = peer
                && let Err(error) = channel.connect_datagram(handle, peer)
            {
                channel.close_handle(handle);
                return Err(error);
            }
            Ok(handle)
        })
    }

    /// Send what was written, wait until something happens or `timeout` seconds are over, and give
    /// what happened: a list that is empty when the time was over or wake() was called, or None
    /// when nothing will ever happen again (the end of a capture file, the other end of a memory
    /// wire has left).
    ///
    /// The interpreter is free for other threads meanwhile; signals are handled at once. Raises
    /// OSError when the port is of no more use.
    #[pyo3(signature = (timeout=None))]
    fn turn<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        self.run(py, self::timeout(timeout)?)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyList>>> {
        if self.shared.core()?.channel.is_closed() {
            return Ok(None);
        }
        self.run(py, None)
    }

    /// End the current or the next wait of this channel's thread, which then gets an empty batch.
    /// The one method for other threads, and for signal handlers.
    fn wake(&self) {
        self.shared.bell().ring();
    }

    /// Close everything. For at most `flush` seconds what was written is still delivered;
    /// connections that are left then are reset. Closing twice is no error.
    #[pyo3(signature = (flush=1.0))]
    fn close(&self, py: Python<'_>, flush: f64) -> PyResult<()> {
        let flush = options::duration("flush", flush)?;
        let (result, connections, others) = {
            let mut core = self.shared.core()?;
            let channel = &mut core.channel;
            let result = py.detach(|| channel.close(flush));
            (result, std::mem::take(&mut core.connections), std::mem::take(&mut core.others))
        };
        // What a program kept with them may have finalizers that are Python code.
        drop((connections, others));
        result.map(drop).map_err(to_python)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (kind, value, trace))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        trace: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (value, trace);
        // After a failure or Ctrl-C nobody wants to wait for peers.
        self.close(py, if kind.is_none() { 1.0 } else { 0.0 })
    }

    /// Whether close() was called.
    #[getter]
    fn closed(&self) -> PyResult<bool> {
        Ok(self.shared.core()?.channel.is_closed())
    }

    /// What the stack and the channel have counted, by name; dropped packets begin with "drop_",
    /// "payloads_copied" are those that found too few frames free to be shown in place.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let core = self.shared.core()?;
        let counters = PyDict::new(py);
        let all = core.channel.stack().counters().iter().chain(core.channel.counters().iter());
        for (name, value) in all.chain([("payloads_copied", core.copied)]) {
            counters.set_item(name, value)?;
        }
        Ok(counters)
    }

    /// What the port has counted, by name; what it lost begins with "rx_" or "tx_" and says why,
    /// what only this kind of port counts begins with "detail_".
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let mut core = self.shared.core()?;
        // The kernel counts anew from each reading on, whoever reads.
        core.channel.check_process().map_err(to_python)?;
        let statistics = core.channel.statistics();
        let counters = PyDict::new(py);
        for (name, value) in [
            ("rx_packets", statistics.rx_packets),
            ("rx_bytes", statistics.rx_bytes),
            ("tx_packets", statistics.tx_packets),
            ("tx_bytes", statistics.tx_bytes),
            ("rx_bursts", statistics.rx_bursts),
            ("system_calls", statistics.system_calls),
        ] {
            counters.set_item(name, value)?;
        }
        for (name, value) in statistics.drops {
            counters.set_item(name, value)?;
        }
        for (name, value) in statistics.details {
            counters.set_item(format!("detail_{name}"), value)?;
        }
        Ok(counters)
    }

    /// How it works, by name: the port and its mode, what was chosen and why.
    #[getter]
    fn facts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let facts = PyDict::new(py);
        for (name, text) in self.shared.core()?.channel.facts() {
            facts.set_item(name, text)?;
        }
        Ok(facts)
    }

    /// The settings of the stack, by the names that Channel() takes; but for the keys of Fast Open,
    /// which are secret.
    #[getter]
    fn settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let core = self.shared.core()?;
        let config = core.channel.stack().config();
        let settings = PyDict::new(py);
        for (name, value) in config.settings() {
            settings.set_item(name, setting::to_python(py, value)?)?;
        }
        let ports = &config.ephemeral_ports;
        settings.set_item("ephemeral_ports", (*ports.start(), *ports.end()))?;
        Ok(settings)
    }

    /// The file of the page that `millrace top` and its like read, or None where the channel is not
    /// watched (facts["watch"] says why, if it was not switched off).
    #[getter]
    fn watch_page(&self) -> PyResult<Option<std::path::PathBuf>> {
        Ok(self.shared.core()?.channel.watch_page().ok().map(std::path::Path::to_owned))
    }

    /// The channel's addresses and what each may be used for: (address with prefix, "tentative",
    /// "optimistic", "preferred", "deprecated" or "duplicate").
    #[getter]
    fn addresses(&self) -> PyResult<Vec<(String, String)>> {
        let core = self.shared.core()?;
        let told = core.channel.addresses().map(|one| {
            let state = format!("{:?}", one.state).to_lowercase();
            (format!("{}/{}", one.address, one.prefix), state)
        });
        Ok(told.collect())
    }

    /// How much of the memory for payload is in use: "state" ("plenty", "pressure" or "high"), "in_use"
    /// and the marks "low", "pressure" and "high", all in frames, and "frame_size" in bytes.
    #[getter]
    fn memory<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let core = self.shared.core()?;
        let (memory, size) =
            (core.channel.stack().memory(), core.channel.stack().arena().frame_size());
        let told = PyDict::new(py);
        told.set_item("state", memory.state.name())?;
        told.set_item("in_use", memory.in_use)?;
        told.set_item("low", memory.low)?;
        told.set_item("pressure", memory.pressure)?;
        told.set_item("high", memory.high)?;
        told.set_item("frame_size", size)?;
        Ok(told)
    }

    /// The routes: (network, gateway or None for what is on the link).
    #[getter]
    fn routes(&self) -> PyResult<Vec<(String, Option<String>)>> {
        let core = self.shared.core()?;
        let told = core.channel.routes().map(|one| {
            let network = format!("{}/{}", one.route.destination, one.route.prefix);
            (network, one.route.gateway.map(|gateway| gateway.to_string()))
        });
        Ok(told.collect())
    }

    /// Add an address of the channel's own, with its prefix.
    ///
    /// Raises ValueError for what is none, FileExistsError if it is there, OSError (EADDRINUSE) if
    /// Linux has it.
    fn add_address(&self, address: &str) -> PyResult<()> {
        let address = address.parse::<Address>().map_err(to_python)?;
        self.shared.core()?.channel.add_address(address).map_err(to_python)
    }

    /// Remove an address of the channel's own, without its prefix; its connections are reset.
    ///
    /// Raises OSError: EADDRNOTAVAIL if it is not the channel's.
    fn remove_address(&self, address: &str) -> PyResult<()> {
        let address = options::ip(address)?;
        self.shared.core()?.channel.remove_address(address).map_err(to_python)
    }

    /// Tell the neighbours which hardware address has the channel's addresses.
    ///
    /// They mend what they remember of them: for an address that another host had before (RFC 5227
    /// section 2.3, RFC 4861 section 7.2.6). It goes out with the next turn.
    fn announce(&self) -> PyResult<()> {
        self.shared.core()?.channel.announce().map_err(to_python)
    }

    /// Add a route to a network, by a gateway or (None) on the link.
    ///
    /// Raises ValueError for what makes no sense.
    #[pyo3(signature = (network, gateway=None))]
    fn add_route(&self, network: &str, gateway: Option<&str>) -> PyResult<()> {
        let route = route(network, gateway)?;
        self.shared.core()?.channel.add_route(route).map_err(to_python)
    }

    /// Remove a route that was added, or a gateway's (0.0.0.0/0, ::/0), as it was given.
    ///
    /// Raises FileNotFoundError if there is no such route.
    #[pyo3(signature = (network, gateway=None))]
    fn remove_route(&self, network: &str, gateway: Option<&str>) -> PyResult<()> {
        let route = route(network, gateway)?;
        self.shared.core()?.channel.remove_route(route).map_err(to_python)
    }

    /// What a DHCP server gave, by name, or None: address (with prefix), server, routes as
    /// (network, gateway or None), name_servers, domain, search_domains, mtu; renewal and expires are
    /// seconds from now, None without an end.
    #[getter]
    fn lease<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let core = self.shared.core()?;
        let Some(lease) = core.channel.lease() else { return Ok(None) };
        let now = millrace_channel::now();
        let left = |at: Option<millrace_frames::Instant>| at.map(|at| (at - now).as_secs_f64());
        let routes: Vec<(String, Option<String>)> = lease
            .routes
            .iter()
            .map(|route| {
                let network = format!("{}/{}", route.destination, route.prefix);
                (network, route.gateway.map(|gateway| gateway.to_string()))
            })
            .collect();
        let servers: Vec<String> = lease.name_servers.iter().map(ToString::to_string).collect();
        let told = PyDict::new(py);
        let own = &lease.address;
        told.set_item("address", format!("{}/{}", own.address, own.prefix))?;
        told.set_item("server", lease.server.to_string())?;
        told.set_item("routes", routes)?;
        told.set_item("name_servers", servers)?;
        told.set_item("domain", lease.domain.as_deref())?;
        told.set_item("search_domains", lease.search_domains.clone())?;
        told.set_item("mtu", lease.mtu)?;
        told.set_item("renewal", left(lease.renew_at))?;
        told.set_item("expires", left(lease.expires))?;
        Ok(Some(told))
    }

    /// Name servers that the DHCP server of the lease and IPv6 routers (RFC 8106) told, while that
    /// holds, in the order in which they are to be asked.
    #[getter]
    fn name_servers(&self) -> PyResult<Vec<String>> {
        let core = self.shared.core()?;
        Ok(core.channel.name_servers().map(|server| server.to_string()).collect())
    }

    /// Domains that names are completed with, as the same told them.
    #[getter]
    fn search_domains(&self) -> PyResult<Vec<String>> {
        let core = self.shared.core()?;
        Ok(core.channel.search_domains().map(str::to_owned).collect())
    }

    /// Connections in any state, TIME-WAIT included.
    #[getter]
    fn connections(&self) -> PyResult<usize> {
        Ok(self.shared.core()?.channel.connections())
    }

    /// Frames that nobody uses, and all frames.
    #[getter]
    fn frames(&self) -> PyResult<(usize, usize)> {
        let core = self.shared.core()?;
        Ok((core.channel.free_frames(), core.channel.total_frames()))
    }

    /// What to do while nothing happens: "sleep", "spin", or microseconds to spin before sleeping.
    #[getter]
    fn wait(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        options::wait_to_python(py, self.shared.core()?.channel.wait())
    }

    #[setter]
    fn set_wait(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let wait = options::wait(value)?;
        self.shared.core()?.channel.set_wait(wait).map_err(to_python)
    }

    fn __repr__(&self, py: Python<'_>) -> String {
        match self.shared.core() {
            Ok(core) => {
                let port = core.channel.port();
                let state = if core.channel.is_closed() { "closed " } else { "" };
                format!("<{state}Channel on {}:{}>", port.kind, port.name)
            }
            Err(_) => format!("<Channel of the thread {}>", self.shared.owner_name(py)),
        }
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // Where it is in use, another thread runs the collector: what is not visited stays.
        let Some(core) = self.shared.try_core() else { return Ok(()) };
        core.connections.iter().flatten().try_for_each(|handle| visit.call(handle))?;
        core.others.values().try_for_each(|handle| visit.call(handle))
    }

    fn __clear__(&self) {
        let Some(mut core) = self.shared.try_core() else { return };
        let taken = (std::mem::take(&mut core.connections), std::mem::take(&mut core.others));
        drop(core);
        drop(taken);
    }
}

impl Channel {
    fn open(
        &self,
        py: Python<'_>,
        open: impl FnOnce(&mut millrace_channel::Channel) -> std::io::Result<millrace_channel::Handle>,
    ) -> PyResult<Py<Handle>> {
        let mut core = self.shared.core()?;
        let inner = open(&mut core.channel).map_err(to_python)?;
        let handle = Py::new(py, Handle::new(inner, Arc::clone(&self.shared), py))?;
        core.insert(py, &handle);
        Ok(handle)
    }

    /// Turns until there is something to tell.
    fn run<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<Duration>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut left = timeout;
        loop {
            let slice = match (self.shared.owner_is_main(), left) {
                (true, left) => Some(left.unwrap_or(SIGNAL_CHECK).min(SIGNAL_CHECK)),
                (false, left) => left,
            };
            {
                let mut core = self.shared.core()?;
                let crate::shared::Core { channel, batch, .. } = &mut *core;
                match py.detach(|| channel.turn(batch, slice)).map_err(to_python)? {
                    Wake::Work => return completion::list(py, &self.shared, &mut core).map(Some),
                    Wake::Bell => return Ok(Some(PyList::empty(py))),
                    Wake::Exhausted => return Ok(None),
                    Wake::Timeout | Wake::Signal => {}
                }
            }
            // Handlers are Python code, which may use the channel.
            py.check_signals()?;
            if self.shared.core()?.channel.is_closed() {
                return Ok(Some(PyList::empty(py)));
            }
            if let Some(end) = end {
                let now = Instant::now();
                if now >= end {
                    return Ok(Some(PyList::empty(py)));
                }
                left = Some(end - now);
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // Handles may live on; they find it closed. The objects for them go after the lock.
        let Some(mut core) = self.shared.try_core() else { return };
        let _ = core.channel.close(Duration::ZERO);
        let taken = (std::mem::take(&mut core.connections), std::mem::take(&mut core.others));
        drop(core);
        drop(taken);
    }
}

/// The addresses, and whether one is to come from a DHCP server.
fn own(value: &Bound<'_, PyAny>) -> PyResult<Own> {
    let mut texts = texts(value).ok_or_else(|| {
        PyTypeError::new_err(
            "address is a text such as 192.0.2.2/24, \"dhcp\", \"slaac\", or a sequence of such",
        )
    })?;
    let mut take = |word: &str| {
        let given = texts.len();
        texts.retain(|text| text != word);
        texts.len() < given
    };
    let (dhcp, slaac) = (take("dhcp"), take("slaac"));
    let addresses: PyResult<_> =
        texts.iter().map(|text| text.parse::<Address>().map_err(to_python)).collect();
    Ok(Own { addresses: addresses?, dhcp, slaac })
}

/// The channel's own addresses, and how it gets others.
struct Own {
    addresses: Vec<Address>,
    dhcp: bool,
    slaac: bool,
}

/// One text, or a sequence of texts.
fn texts(value: &Bound<'_, PyAny>) -> Option<Vec<String>> {
    match value.extract::<String>() {
        Ok(text) => Some(vec![text]),
        Err(_) => value.extract().ok(),
    }
}

fn gateways(value: &Bound<'_, PyAny>) -> PyResult<Vec<IpAddr>> {
    let texts = texts(value).ok_or_else(|| {
        PyTypeError::new_err("gateway is a text such as 192.0.2.254, or a sequence of such")
    })?;
    texts.iter().map(|text| options::ip(text)).collect()
}

/// A network and its prefix's length, as in 198.51.100.0/24.
fn route(network: &str, gateway: Option<&str>) -> PyResult<Route> {
    let wrong = || {
        PyValueError::new_err(format!(
            "{network:?} is no network with a prefix; write it as 198.51.100.0/24 or 2001:db8::/32"
        ))
    };
    let (destination, prefix) = network.split_once('/').ok_or_else(wrong)?;
    Ok(Route {
        destination: destination.parse().map_err(|_| wrong())?,
        prefix: prefix.parse().map_err(|_| wrong())?,
        gateway: gateway.map(options::ip).transpose()?,
    })
}

/// Waits for an IPv6 router, with a look for signals now and then.
fn wait_for_router(
    py: Python<'_>,
    channel: &mut millrace_channel::Channel,
    port: &str,
    timeout: Duration,
) -> PyResult<()> {
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if py.detach(|| channel.wait_for_router(left.min(SIGNAL_CHECK))).map_err(to_python)? {
            return Ok(());
        }
        py.check_signals()?;
        if left.is_zero() {
            let counters = channel.stack().counters();
            return Err(to_python(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!(
                    "no IPv6 router on {port} gave a prefix to make an address from within \
                     {timeout:?} (solicitations {}, advertisements {}, duplicate addresses {}); \
                     is there one on this network?",
                    counters.router_solicitations_sent,
                    counters.router_advertisements,
                    counters.duplicate_addresses
                ),
            )));
        }
    }
}

/// Waits for a DHCP server, with a look for signals now and then.
fn wait_for_lease(
    py: Python<'_>,
    channel: &mut millrace_channel::Channel,
    port: &str,
    timeout: Duration,
) -> PyResult<()> {
    let end = Instant::now() + timeout;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if py.detach(|| channel.wait_for_lease(left.min(SIGNAL_CHECK))).map_err(to_python)? {
            return Ok(());
        }
        py.check_signals()?;
        if left.is_zero() {
            let counters = channel.stack().counters();
            return Err(to_python(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                format!(
                    "no DHCP server on {port} gave an address within {timeout:?} (sent {}, \
                     refused {}, answers that made no sense {}); is there one on this network?",
                    counters.dhcp_messages_out, counters.dhcp_naks, counters.drop_dhcp_malformed
                ),
            )));
        }
    }
}
