//! Networks of stacks in virtual time. Thin: `millrace.lab.simulation` is what a user sees.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use millrace_channel::errno;
use millrace_frames::Duration;
use millrace_simulate::{
    Behaviour, Change, Conversation, Exchange, ExternalId, HostSpec, Manner, NodeId, Notice, Pace,
    Report, RouterSpec, SettingError, Settings, SideReport, Stop, Topology, WireId, WireSpec,
    World, explain, integrity, set_option,
};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use crate::errors::to_python;
use crate::forwarder::impairment;
use crate::info::{ConnectionInfo, tcp_info};
use crate::options::duration;
use crate::setting;

/// A network that is described first and then alive: the first thing that needs it alive brings it
/// to life, and nothing can be added afterwards.
#[pyclass(module = "millrace._native")]
pub(crate) struct Simulation {
    settings: Settings,
    topology: Topology,
    nodes: Vec<NodeId>,
    wires: Vec<WireId>,
    world: Option<World>,
}

/// Events between two looks at whether the user wants to end it: some tens of milliseconds.
const BETWEEN_SIGNALS: u64 = 10_000;

type Pairs = Vec<(&'static str, u64)>;

#[pymethods]
impl Simulation {
    #[new]
    #[pyo3(signature = (seed, *, ipv6=false, trace=None, digest=true, check=false))]
    fn new(seed: u64, ipv6: bool, trace: Option<PathBuf>, digest: bool, check: bool) -> Simulation {
        Simulation {
            settings: Settings { seed, ipv6, trace, digest, check, ..Settings::default() },
            topology: Topology::new(),
            nodes: Vec::new(),
            wires: Vec::new(),
            world: None,
        }
    }

    /// Add a host. Returns its number.
    fn host(&mut self, name: Option<&str>, options: &Bound<'_, PyDict>) -> PyResult<usize> {
        let mut spec = HostSpec::default();
        for (name, value) in options {
            let name: String = name.extract()?;
            let taken = setting::from_python(&value)?;
            set_option(&mut spec, &name, &taken).map_err(|error| {
                let shown = setting::shown(&value, &taken);
                match error {
                    SettingError::Unknown => to_python(explain(&error, &name, &shown)),
                    error => setting::error(&error, &name, &shown),
                }
            })?;
        }
        self.growing()?;
        let node = self.topology.host(name, spec).map_err(to_python)?;
        Ok(self.add(node))
    }

    /// Add a switch. Returns its number.
    fn switch(&mut self, name: Option<&str>) -> PyResult<usize> {
        self.growing()?;
        let node = self.topology.switch(name).map_err(to_python)?;
        Ok(self.add(node))
    }

    /// Add a router. Returns its number.
    fn router(&mut self, name: Option<&str>, icmp: bool) -> PyResult<usize> {
        self.growing()?;
        let node = self.topology.router(name, RouterSpec { icmp }).map_err(to_python)?;
        Ok(self.add(node))
    }

    /// Join two nodes. Returns the wire's number.
    #[pyo3(signature = (a, b, forth, back, *, mtu, super_segments, capture))]
    #[allow(clippy::too_many_arguments, reason = "one for each thing a wire has")]
    fn wire(
        &mut self,
        a: usize,
        b: usize,
        forth: &Bound<'_, PyDict>,
        back: &Bound<'_, PyDict>,
        mtu: u16,
        super_segments: bool,
        capture: bool,
    ) -> PyResult<usize> {
        self.growing()?;
        let directions = [impairment(forth)?, impairment(back)?];
        let spec = WireSpec { directions, mtu, super_segments, capture };
        let (a, b) = (self.node(a)?, self.node(b)?);
        let wire = self.topology.wire(a, b, spec).map_err(to_python)?;
        self.wires.push(wire);
        Ok(self.wires.len() - 1)
    }

    /// A node's name.
    fn name(&self, node: usize) -> PyResult<String> {
        let node = self.node(node)?;
        let topology = self.world.as_ref().map_or(&self.topology, World::topology);
        Ok(topology.name(node).to_owned())
    }

    /// A host's address.
    fn address(&mut self, node: usize, ipv6: bool) -> PyResult<String> {
        let node = self.node(node)?;
        Ok(self.world()?.address(node, ipv6).map_err(to_python)?.to_string())
    }

    /// Seconds since the start.
    fn now(&self) -> f64 {
        self.world.as_ref().map_or(0.0, |world| world.now().as_secs_f64())
    }

    /// Plan `count` conversations, one every `interval` seconds. A side is a mapping of `bytes`,
    /// `seconds`, `manner`, `after`, `pause`, `frames`, `size`, `no_delay` and `linger`.
    #[pyo3(signature = (client, server, port, sides, *, start, ipv6, count, interval, exchange=None))]
    #[allow(clippy::too_many_arguments, reason = "one for each thing a conversation has")]
    fn converse(
        &mut self,
        client: usize,
        server: usize,
        port: u16,
        sides: (Bound<'_, PyDict>, Bound<'_, PyDict>),
        start: f64,
        ipv6: bool,
        count: u64,
        interval: f64,
        exchange: Option<(u32, u32, f64)>,
    ) -> PyResult<()> {
        let exchange = match exchange {
            Some((request, response, think)) => {
                Some(Exchange { request, response, think: duration("think", think)? })
            }
            None => None,
        };
        let conversation = Conversation {
            client: self.node(client)?,
            server: self.node(server)?,
            port,
            ipv6,
            start: duration("start", start)?,
            sides: [behaviour(&sides.0)?, behaviour(&sides.1)?],
            exchange,
        };
        let interval = duration("interval", interval)?;
        self.world()?.series(conversation, count, interval).map_err(to_python)
    }

    /// Plan a change of a wire: down, up, mtu, impair.
    #[pyo3(signature = (at, wire, what, *, mtu=1500, forth=None, back=None))]
    fn change_wire(
        &mut self,
        at: f64,
        wire: usize,
        what: &str,
        mtu: u16,
        forth: Option<&Bound<'_, PyDict>>,
        back: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let at = duration("at", at)?;
        let wire = *self.wires.get(wire).ok_or_else(|| PyValueError::new_err("no such wire"))?;
        let change = match (what, forth, back) {
            ("down", _, _) => Change::Down(wire),
            ("up", _, _) => Change::Up(wire),
            ("mtu", _, _) => Change::Mtu(wire, mtu),
            ("impair", Some(forth), Some(back)) => {
                Change::Impair(wire, Box::new([impairment(forth)?, impairment(back)?]))
            }
            _ => return Err(PyValueError::new_err(format!("a wire cannot {what:?}"))),
        };
        self.world()?.change(at, change).map_err(to_python)
    }

    /// Plan a change of a host: vanish, reboot.
    fn change_host(&mut self, at: f64, node: usize, what: &str) -> PyResult<()> {
        let at = duration("at", at)?;
        let node = self.node(node)?;
        let change = match what {
            "vanish" => Change::Vanish(node),
            "reboot" => Change::Reboot(node),
            _ => return Err(PyValueError::new_err(format!("a host cannot {what:?}"))),
        };
        self.world()?.change(at, change).map_err(to_python)
    }

    /// Have ("call", number) told at a time.
    fn call_at(&mut self, at: f64, number: u64) -> PyResult<()> {
        let at = duration("at", at)?;
        self.world()?.call_at(at, number);
        Ok(())
    }

    /// Listen; what comes is told with `handler`.
    fn listen(&mut self, node: usize, port: u16, handler: u32) -> PyResult<()> {
        let node = self.node(node)?;
        self.world()?.listen(node, port, handler).map_err(to_python)
    }

    /// Connect. Returns the connection's number.
    fn connect(&mut self, node: usize, address: &str, port: u16) -> PyResult<u32> {
        let node = self.node(node)?;
        let address: IpAddr = address
            .parse()
            .map_err(|_| PyValueError::new_err(format!("{address:?} is no IP address")))?;
        let remote = SocketAddr::new(address, port);
        Ok(self.world()?.connect(node, remote).map_err(to_python)?.0)
    }

    /// Write to a connection.
    fn write(&mut self, connection: u32, data: &[u8]) -> PyResult<()> {
        self.world()?.write(ExternalId(connection), data).map_err(to_python)
    }

    /// No more is written.
    fn shutdown(&mut self, connection: u32) -> PyResult<()> {
        self.world()?.shutdown(ExternalId(connection)).map_err(to_python)
    }

    /// Close when all that was written is with the stack.
    fn close(&mut self, connection: u32) -> PyResult<()> {
        self.world()?.close(ExternalId(connection));
        Ok(())
    }

    /// Reset.
    fn abort(&mut self, connection: u32) -> PyResult<()> {
        self.world()?.abort(ExternalId(connection));
        Ok(())
    }

    /// Leave what comes in with the stack, or take it again.
    fn pause(&mut self, connection: u32, paused: bool) -> PyResult<()> {
        self.world()?.pause(ExternalId(connection), paused).map_err(to_python)
    }

    /// Bytes that were written and wait for room in the stack.
    fn waiting(&mut self, connection: u32) -> PyResult<usize> {
        Ok(self.world()?.waiting(ExternalId(connection)))
    }

    /// A look at a connection; when it is over, the last one.
    fn info(&mut self, connection: u32) -> PyResult<Option<ConnectionInfo>> {
        Ok(self.world()?.info(ExternalId(connection)).map(ConnectionInfo::from))
    }

    /// The same under the names of Linux's struct tcp_info.
    fn tcp_info<'py>(
        &mut self,
        py: Python<'py>,
        connection: u32,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let info = self.world()?.tcp_info(ExternalId(connection));
        info.map(|info| tcp_info(py, &info)).transpose()
    }

    /// Go on until a time, until nothing will happen any more, or until something is to be told.
    /// Returns "time", "quiet" or "notices", and what is to be told.
    fn run<'py>(
        &mut self,
        py: Python<'py>,
        until: f64,
    ) -> PyResult<(&'static str, Bound<'py, PyList>)> {
        let until = duration("until", until)?;
        let world = self.world()?;
        let stop = loop {
            let stop =
                py.detach(|| world.run_a_while(until, BETWEEN_SIGNALS)).map_err(to_python)?;
            py.check_signals()?;
            if let Some(stop) = stop {
                break stop;
            }
        };
        let notices = PyList::empty(py);
        while let Some(notice) = world.notice() {
            notices.append(told(py, notice)?)?;
        }
        let stop = match stop {
            Stop::Time => "time",
            Stop::Quiet => "quiet",
            Stop::Notices => "notices",
        };
        Ok((stop, notices))
    }

    /// What became of each conversation.
    fn reports<'py>(&mut self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let world = self.world()?;
        let start = world.epoch();
        let reports = world.reports();
        reports.into_iter().map(|report| report_dict(py, world, start, report)).collect()
    }

    /// Each host's name and counters, those that are not zero.
    fn stacks(&mut self) -> PyResult<Vec<(String, Pairs)>> {
        let stacks = self.world()?.stacks().map(|(name, counters, no_frame)| {
            let all = counters.iter().chain([("rx_no_frame", no_frame)]);
            (name.to_owned(), all.filter(|&(_, count)| count > 0).collect())
        });
        Ok(stacks.collect())
    }

    /// Each router's name and counters.
    fn routers(&mut self) -> PyResult<Vec<(String, Pairs)>> {
        let world = self.world()?;
        Ok(world.routers().map(|(name, one)| (name.to_owned(), one.iter().collect())).collect())
    }

    /// Each wire's name and the counters of its directions.
    fn wires(&mut self) -> PyResult<Vec<(String, Pairs, Pairs)>> {
        let wires = self
            .world()?
            .wires()
            .map(|(name, [forth, back])| (name, forth.iter().collect(), back.iter().collect()));
        Ok(wires.collect())
    }

    /// SHA-256 of all packets so far.
    fn digest(&mut self) -> PyResult<Option<String>> {
        Ok(self.world()?.digest())
    }

    /// What should never happen and did.
    fn violations(&mut self) -> PyResult<Vec<String>> {
        Ok(self.world()?.violations().to_vec())
    }

    /// Events that have happened.
    fn events(&mut self) -> PyResult<u64> {
        Ok(self.world()?.events())
    }
}

impl Simulation {
    fn growing(&self) -> PyResult<()> {
        match self.world {
            None => Ok(()),
            Some(_) => Err(PyRuntimeError::new_err(
                "the network is alive; add all hosts, switches, routers and wires first",
            )),
        }
    }

    fn add(&mut self, node: NodeId) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn node(&self, number: usize) -> PyResult<NodeId> {
        self.nodes.get(number).copied().ok_or_else(|| PyValueError::new_err("no such node"))
    }

    fn world(&mut self) -> PyResult<&mut World> {
        if self.world.is_none() {
            let world = World::new(self.topology.clone(), self.settings.clone());
            self.world = Some(world.map_err(to_python)?);
        }
        self.world.as_mut().ok_or_else(|| PyRuntimeError::new_err("there is no network"))
    }
}

fn behaviour(fields: &Bound<'_, PyDict>) -> PyResult<Behaviour> {
    let mut made = Behaviour::default();
    let (mut manner, mut after) = (String::from("patient"), 0);
    let (mut pause, mut frames, mut size) = (None, 20, 5_000);
    for (name, value) in fields {
        let name: String = name.extract()?;
        let time = || duration(&name, value.extract()?);
        match name.as_str() {
            "bytes" => made.bytes = value.extract()?,
            "seconds" => {
                made.writes_for = Some(time()?);
                made.bytes = u64::MAX;
            }
            "manner" => manner = value.extract()?,
            "after" => after = value.extract()?,
            "pause" => pause = Some(time()?),
            "frames" => frames = value.extract()?,
            "size" => size = value.extract()?,
            "no_delay" => made.no_delay = value.extract()?,
            "linger" => made.linger = Some(time()?),
            _ => return Err(PyTypeError::new_err(format!("a side has no {name:?}"))),
        }
    }
    made.manner = match manner.as_str() {
        "patient" => Manner::Patient,
        "polite" => Manner::Polite,
        "hasty" => Manner::Hasty,
        "rude" => Manner::Rude(after),
        "deaf" => Manner::Deaf,
        "fickle" => Manner::Fickle,
        _ => {
            return Err(PyValueError::new_err(format!(
                "manner is patient, polite, hasty, rude, deaf or fickle, not {manner:?}"
            )));
        }
    };
    if let Some(pause) = pause {
        made.pace = Pace::Lazy { pause, frames, bytes: size };
    }
    Ok(made)
}

fn told(py: Python<'_>, notice: Notice) -> PyResult<Bound<'_, PyTuple>> {
    match notice {
        Notice::Accepted { handler, connection } => {
            ("accepted", connection.0, handler).into_pyobject(py)
        }
        Notice::Connected(connection) => ("connected", connection.0, py.None()).into_pyobject(py),
        Notice::Data(connection, data) => {
            ("data", connection.0, PyBytes::new(py, &data)).into_pyobject(py)
        }
        Notice::Drained(connection) => ("drained", connection.0, py.None()).into_pyobject(py),
        Notice::Finished(connection) => ("finished", connection.0, py.None()).into_pyobject(py),
        Notice::Closed(connection, failure) => {
            ("closed", connection.0, failure.map(errno)).into_pyobject(py)
        }
        Notice::Call(number) => ("call", number, py.None()).into_pyobject(py),
    }
}

fn report_dict<'py>(
    py: Python<'py>,
    world: &World,
    start: millrace_frames::Instant,
    report: Report,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let Conversation { client, server, port, .. } = report.conversation;
    dict.set_item("client", world.topology().name(client))?;
    dict.set_item("server", world.topology().name(server))?;
    dict.set_item("port", port)?;
    dict.set_item("started", (report.started - start).as_secs_f64())?;
    dict.set_item("duration", report.duration().map(|time| time.as_secs_f64()))?;
    dict.set_item("complete", report.complete())?;
    let latencies: Vec<f64> = report.latencies.iter().map(Duration::as_secs_f64).collect();
    dict.set_item("latencies", latencies)?;
    let [client, server] = report.sides.map(|side| side_dict(py, start, side));
    dict.set_item("sides", (client?, server?))?;
    Ok(dict)
}

fn side_dict<'py>(
    py: Python<'py>,
    start: millrace_frames::Instant,
    side: SideReport,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    let time = |at: Option<millrace_frames::Instant>| at.map(|at| (at - start).as_secs_f64());
    dict.set_item("goodput", side.goodput() * 8.0)?;
    dict.set_item("written", side.written)?;
    dict.set_item("received", side.received)?;
    dict.set_item("finished", side.finished)?;
    dict.set_item("errno", side.failure.map(errno))?;
    dict.set_item("vanished", side.vanished)?;
    dict.set_item("connected", time(side.connected))?;
    dict.set_item("first_byte", time(side.first_byte))?;
    dict.set_item("last_byte", time(side.last_byte))?;
    dict.set_item("ended", time(side.ended))?;
    let info = side.info.map(|info| ConnectionInfo::from(info).into_py_any(py)).transpose()?;
    dict.set_item("info", info)?;
    Ok(dict)
}

/// Make the random world of a seed, run it and judge it: returns whether it kept all promises, what
/// is random about it, and what came of it.
#[pyfunction]
#[pyo3(signature = (seed, *, trace=None))]
pub(crate) fn random_world<'py>(
    py: Python<'py>,
    seed: u64,
    trace: Option<PathBuf>,
) -> PyResult<Bound<'py, PyDict>> {
    let (description, judged) = py.detach(|| {
        let description = integrity::describe(seed);
        (description, integrity::run(seed, trace, true))
    });
    let dict = PyDict::new(py);
    dict.set_item("description", description.map_err(to_python)?)?;
    match judged {
        Ok(passed) => {
            dict.set_item("wrong", Vec::<String>::new())?;
            dict.set_item("digest", passed.digest)?;
            dict.set_item("events", passed.events)?;
            dict.set_item("seconds", passed.time.as_secs_f64())?;
            dict.set_item("connections", passed.connections)?;
            dict.set_item("complete", passed.complete)?;
        }
        Err(broken) => dict.set_item("wrong", broken.0)?,
    }
    Ok(dict)
}
