//! A socket of datagrams or packets, as checked.

use std::collections::HashMap;
use std::net::IpAddr;

use ringport_platform::sockopt::{OptFault, OptSet, Role, Target};

use super::address::{Address, OriginAddress};
use super::check::{Check, join};
use super::error::SpecErrors;
use super::nearest::quoted;
use super::net_addr::{AnyHost, Carries, NetAddr, Network};
use super::raw;
use super::read::{Format, parse, read_and_check};
use super::sockopt::SockOptions;
use super::unix_file::UnixFile;

/// A packet socket, as checked: every value is in its range, nothing contradicts itself, and every default is filled in.
///
/// Made by [`PacketSpec::from_text`], `TryFrom<&raw::PacketConnConfig>` or [`PacketSpec::builder`], which obey the same
/// rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketSpec {
    network: Network,
    local: Option<NetAddr<Address>>,
    peer: Option<NetAddr<OriginAddress>>,
    sock_options: SockOptions,
    batch: u32,
    receive_ecn: bool,
    multicast: Multicast,
    unix: Option<UnixFile>,
}

impl PacketSpec {
    /// Reads and checks a text that is a `PacketConnConfig`; `file_name` is only quoted in faults.
    ///
    /// # Errors
    /// Every fault of the text, with line, column and path. The writer of the text is at fault.
    pub fn from_text(text: &str, format: Format, file_name: &str) -> Result<PacketSpec, SpecErrors> {
        read_and_check(&parse(text, format, file_name)?, file_name, |raw| PacketSpec::try_from(raw))
    }

    /// Begins a spec in code: a socket of this network, with every other field at its default. [`PacketSpecBuilder::build`]
    /// refuses a network of streams.
    pub fn builder(network: Network) -> PacketSpecBuilder {
        let spec = PacketSpec {
            network,
            local: None,
            peer: None,
            sock_options: SockOptions::default(),
            batch: DEFAULT_BATCH,
            receive_ecn: false,
            multicast: Multicast::default(),
            unix: None,
        };
        PacketSpecBuilder { spec }
    }

    /// A builder that begins with this spec, to change it.
    pub fn into_builder(self) -> PacketSpecBuilder {
        PacketSpecBuilder { spec: self }
    }

    /// The network, of datagrams or packets.
    pub fn network(&self) -> Network {
        self.network
    }

    /// Where datagrams come in. Default: every address, at a port that the kernel chooses; `None` for a Unix socket without a
    /// name.
    pub fn local(&self) -> Option<&NetAddr<Address>> {
        self.local.as_ref()
    }

    /// The only peer that is sent to and heard. Default `None`: any.
    pub fn peer(&self) -> Option<&NetAddr<OriginAddress>> {
        self.peer.as_ref()
    }

    /// Options of the socket, set before bind.
    pub fn sock_options(&self) -> &SockOptions {
        &self.sock_options
    }

    /// Datagrams of one receive or send at most: 1 to 1,024. Default 64.
    pub fn batch(&self) -> u32 {
        self.batch
    }

    /// Whether each received datagram tells its ECN bits (RFC 3168). Default no.
    pub fn receives_ecn(&self) -> bool {
        self.receive_ecn
    }

    /// Multicast groups that are joined, and how far what is sent to groups goes.
    pub fn multicast(&self) -> &Multicast {
        &self.multicast
    }

    /// The socket's file; `None` where the address has none.
    pub fn unix_file(&self) -> Option<&UnixFile> {
        self.unix.as_ref()
    }

    /// The sort of socket.
    pub fn target(&self) -> Target {
        target(self.network, self.local.as_ref(), self.peer.is_some())
    }

    /// Every option of the socket, and the options that are skipped because such a socket lacks them.
    ///
    /// # Errors
    /// The options that such a socket lacks and the spec does not let be skipped; never for a spec that was checked.
    pub fn socket_options(&self) -> Result<(OptSet, Vec<OptFault>), Vec<OptFault>> {
        self.sock_options.for_target(self.target())
    }

    /// The message that means this spec, with the defaults written out.
    pub fn to_raw(&self) -> raw::PacketConnConfig {
        let is_unix = self.network.is_unix();
        let multicast = &self.multicast;
        raw::PacketConnConfig {
            network: Some(self.network.to_string()),
            address: self.local.as_ref().map(|local| bare(&local.to_string())),
            sock_option: Some(self.sock_options.to_raw()),
            peer: self.peer.as_ref().map(|peer| bare(&peer.to_string())),
            batch: Some(i32::try_from(self.batch).unwrap_or(i32::MAX)),
            receive_ecn: (!is_unix || self.receive_ecn).then_some(self.receive_ecn),
            multicast_groups: multicast.groups.iter().map(MulticastGroup::to_raw).collect(),
            multicast_hops: (!is_unix || multicast.hops != DEFAULT_HOPS).then_some(multicast.hops.into()),
            multicast_loop: (!is_unix || !multicast.is_heard_here).then_some(multicast.is_heard_here),
            unix: self.unix.as_ref().map(UnixFile::to_raw),
        }
    }
}

/// Without the network in front.
fn bare(text: &str) -> String {
    text.split_once("://").map_or(text, |(_, address)| address).to_owned()
}

impl TryFrom<&raw::PacketConnConfig> for PacketSpec {
    type Error = SpecErrors;

    fn try_from(raw: &raw::PacketConnConfig) -> Result<Self, SpecErrors> {
        let mut check = Check::default();
        let spec = check.packet_conn_config(raw, "");
        check.complete(spec)
    }
}

/// Multicast of a packet socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multicast {
    /// Groups that are joined, at most 64, none twice.
    pub groups: Vec<MulticastGroup>,
    /// How many hops datagrams to groups may go: 0 to 255. Default 1, the network of the interface. `IP_MULTICAST_TTL`,
    /// `IPV6_MULTICAST_HOPS`.
    pub hops: u8,
    /// Whether this machine hears what it sends to groups that it has joined. Default yes. `IP_MULTICAST_LOOP`.
    pub is_heard_here: bool,
}

impl Default for Multicast {
    /// No group; one hop, heard here too.
    fn default() -> Self {
        Multicast { groups: Vec::new(), hops: DEFAULT_HOPS, is_heard_here: true }
    }
}

/// A multicast group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MulticastGroup {
    /// A multicast address of the socket's family.
    pub group: IpAddr,
    /// Name of the interface: 1 to 15 bytes. `None`: the kernel chooses by its routes.
    pub interface: Option<String>,
    /// Only packets from this address (RFC 4607).
    pub source: Option<IpAddr>,
}

impl MulticastGroup {
    fn to_raw(&self) -> raw::MulticastGroup {
        raw::MulticastGroup {
            group: Some(self.group.to_string()),
            interface: self.interface.clone(),
            source: self.source.map(|source| source.to_string()),
        }
    }
}

/// A [`PacketSpec`] that is being written in code; checked as a whole at the end.
#[derive(Clone, Debug)]
pub struct PacketSpecBuilder {
    spec: PacketSpec,
}

impl PacketSpecBuilder {
    /// Sets where datagrams come in.
    pub fn local(mut self, local: NetAddr<Address>) -> Self {
        self.spec.local = Some(local);
        self
    }

    /// Sets the only peer.
    pub fn peer(mut self, peer: NetAddr<OriginAddress>) -> Self {
        self.spec.peer = Some(peer);
        self
    }

    /// Sets options of the socket.
    pub fn sock_options(mut self, options: SockOptions) -> Self {
        self.spec.sock_options = options;
        self
    }

    /// Sets how many datagrams one receive or send takes at most.
    pub fn batch(mut self, batch: u32) -> Self {
        self.spec.batch = batch;
        self
    }

    /// Sets whether the ECN bits of what comes are told.
    pub fn receive_ecn(mut self, receive_ecn: bool) -> Self {
        self.spec.receive_ecn = receive_ecn;
        self
    }

    /// Sets groups, and what is sent to them.
    pub fn multicast(mut self, multicast: Multicast) -> Self {
        self.spec.multicast = multicast;
        self
    }

    /// Sets what is done with the socket's file.
    pub fn unix_file(mut self, file: UnixFile) -> Self {
        self.spec.unix = Some(file);
        self
    }

    /// Checks the whole and fills the defaults in.
    ///
    /// # Errors
    /// Every fault, by path. The caller is at fault.
    pub fn build(self) -> Result<PacketSpec, SpecErrors> {
        let PacketSpec { local, peer, sock_options, unix, .. } = &self.spec;
        let spec = PacketSpec::try_from(&self.spec.to_raw())?;
        let mut check = Check::default();
        check.kept("address", local.is_none() || spec.local == *local);
        check.kept("peer", spec.peer == *peer);
        check.kept("sock_option", sock_options.is_in(&spec.sock_options));
        check.kept("unix", unix.is_none() || spec.unix == *unix);
        check.or(spec)
    }
}

impl Check {
    pub(super) fn packet_conn_config(
        &mut self,
        raw: &raw::PacketConnConfig,
        path: &str,
    ) -> Option<PacketSpec> {
        let at = |field: &str| join(path, field);
        // What cannot be read says nothing of the rest, which is looked at all the same.
        let (network, local) = self.packet_address(raw, path);
        let known_local = local.as_ref().and_then(Option::as_ref);
        let peer = self.packet_peer(raw, &at("peer"), network);
        let target =
            network.filter(|_| local.is_some()).map(|network| target(network, known_local, peer.is_some()));
        let has_file = local.is_none() || matches!(known_local.map(NetAddr::address), Some(Address::Unix(_)));
        if network.is_some_and(Network::is_unix) && raw.receive_ecn == Some(true) {
            self.fault(at("receive_ecn"), "a Unix socket has no ECN");
        }
        let sock_options = self.sock_option(raw.sock_option.as_ref(), &at("sock_option"), target);
        let batch = self.range(at("batch"), raw.batch, 1..=1_024).unwrap_or(DEFAULT_BATCH);
        let multicast = self.multicast(raw, path, network, known_local);
        let unix = self.unix_file(raw.unix.as_ref(), &at("unix"), has_file);
        let receive_ecn = raw.receive_ecn.unwrap_or(false);
        Some(PacketSpec {
            network: network?,
            local: local?,
            peer,
            sock_options,
            batch,
            receive_ecn,
            multicast,
            unix,
        })
    }

    fn packet_peer(
        &mut self,
        raw: &raw::PacketConnConfig,
        path: &str,
        network: Option<Network>,
    ) -> Option<NetAddr<OriginAddress>> {
        let network = network?;
        let Some(text) = raw.peer.as_deref().filter(|peer| !peer.is_empty()) else {
            if network == Network::UnixPacket {
                self.fault(path, "unixpacket needs a peer; to take connections is what a listener does");
            }
            return None;
        };
        let peer = self.parsed(path, NetAddr::<OriginAddress>::parse(text, Some(network)))?;
        if peer.network() != network {
            self.fault(path, format!("{peer} is not of the socket's network, {network}"));
        }
        Some(peer)
    }

    /// Each is `None` where what is written is none, which has been told then.
    fn packet_address(
        &mut self,
        raw: &raw::PacketConnConfig,
        path: &str,
    ) -> (Option<Network>, Option<Option<NetAddr<Address>>>) {
        let network_path = join(path, "network");
        let written = match raw.network.as_deref() {
            None | Some("") => None,
            Some(name) => match self.parsed(&network_path, name.parse::<Network>()) {
                Some(network) => Some(network),
                None => return (None, None),
            },
        };
        let default = written.unwrap_or(Network::Udp);
        let local = match raw.address.as_deref() {
            None | Some("") if default.is_unix() => Some(None),
            None | Some("") => {
                let any = if default.has_ports() { ":0" } else { "" };
                let parsed = NetAddr::<Address>::parse(any, Some(default), AnyHost::Allowed);
                Some(self.parsed(&network_path, parsed))
            }
            Some(text) => {
                let parsed = NetAddr::<Address>::parse(text, Some(default), AnyHost::Allowed);
                self.parsed(&join(path, "address"), parsed).map(Some)
            }
        };
        let network = match &local {
            Some(local) => local.as_ref().map_or(default, NetAddr::network),
            // It may have meant another one.
            None if written.is_none() => return (None, None),
            None => default,
        };
        if written.is_some_and(|written| written != network) {
            self.fault(network_path, format!("address is of another network, {network}"));
        } else if network.carries() == Carries::Stream {
            let path = if written.is_some() { network_path } else { join(path, "address") };
            self.fault(
                path,
                format!("{network} has no packets; write udp, unixgram, unixpacket or ip:PROTOCOL"),
            );
        }
        (Some(network), local)
    }

    fn multicast(
        &mut self,
        raw: &raw::PacketConnConfig,
        path: &str,
        network: Option<Network>,
        local: Option<&NetAddr<Address>>,
    ) -> Multicast {
        let at = |field: &str| join(path, field);
        let defaults = Multicast::default();
        if network.is_some_and(Network::is_unix) {
            let written = [
                ("multicast_groups", !raw.multicast_groups.is_empty()),
                ("multicast_hops", raw.multicast_hops.is_some()),
                ("multicast_loop", raw.multicast_loop.is_some()),
            ];
            for (field, _) in written.iter().filter(|(_, is_written)| *is_written) {
                self.fault(at(field), "a Unix socket has no multicast");
            }
            return defaults;
        }
        let list = at("multicast_groups");
        self.at_most(&list, raw.multicast_groups.len(), MAX_GROUPS);
        let mut groups = Vec::new();
        let mut first: HashMap<MulticastGroup, usize> = HashMap::new();
        for (index, raw) in raw.multicast_groups.iter().enumerate().take(MAX_GROUPS) {
            let path = format!("{list}[{index}]");
            let Some(group) = self.multicast_group(raw, &path, network, local) else { continue };
            if let Some(other) = first.insert(group.clone(), index) {
                self.fault(path, format!("joined twice, first as {list}[{other}]"));
            }
            groups.push(group);
        }
        Multicast {
            groups,
            hops: self.range(at("multicast_hops"), raw.multicast_hops, 0..=255).unwrap_or(defaults.hops),
            is_heard_here: raw.multicast_loop.unwrap_or(defaults.is_heard_here),
        }
    }

    fn multicast_group(
        &mut self,
        raw: &raw::MulticastGroup,
        path: &str,
        network: Option<Network>,
        local: Option<&NetAddr<Address>>,
    ) -> Option<MulticastGroup> {
        let address = |text: &str, fits: &dyn Fn(&IpAddr) -> bool, what: &str| {
            let is_taken = |ip: &IpAddr| network.is_none_or(|network| network.takes(*ip));
            let found = text.parse::<IpAddr>().ok().filter(|ip| fits(ip) && is_taken(ip));
            let of = network.map_or_else(String::new, |network| format!(" of {network}"));
            found.ok_or_else(|| format!("{} is no {what} address{of}", quoted(text)))
        };
        let group = raw.group.as_deref().unwrap_or_default();
        let group = self.parsed(&join(path, "group"), address(group, &IpAddr::is_multicast, "multicast"));
        if let (Some(group), Some(Address::Inet(local))) = (group, local.map(NetAddr::address))
            && group.is_ipv6()
            && local.is_ipv4()
        {
            self.fault(join(path, "group"), format!("the socket at {local} has IPv4 only"));
        }
        let source = raw.source.as_deref().filter(|source| !source.is_empty()).and_then(|text| {
            let unicast =
                |ip: &IpAddr| !ip.is_multicast() && group.is_none_or(|group| group.is_ipv4() == ip.is_ipv4());
            self.parsed(&join(path, "source"), address(text, &unicast, "source"))
        });
        let interface = raw.interface.clone().filter(|name| !name.is_empty());
        if let Some(name) = &interface
            && (name.len() > MAX_INTERFACE_BYTES
                || name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()))
        {
            self.fault(join(path, "interface"), format!("{} is no name of an interface", quoted(name)));
        }
        Some(MulticastGroup { group: group?, interface, source })
    }
}

fn target(network: Network, local: Option<&NetAddr<Address>>, is_connected: bool) -> Target {
    let ip = match local.map(NetAddr::address) {
        Some(Address::Inet(inet)) => Some(inet.ip()),
        Some(Address::Unix(_) | Address::UnixAbstract(_)) | None => None,
    };
    network.target(if is_connected { Role::Dialled } else { Role::Packet }, ip)
}

const DEFAULT_BATCH: u32 = 64;
const DEFAULT_HOPS: u8 = 1;
const MAX_GROUPS: usize = 64;
/// `IFNAMSIZ` has room for a NUL.
const MAX_INTERFACE_BYTES: usize = 15;
