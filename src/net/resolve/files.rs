//! Files that tell of names: hosts(5), and of `/etc/resolv.conf` (resolv.conf(5)) the servers, the search list and `ndots`.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringport_platform::file::FileStamp;

/// Which files are read.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) hosts: Option<PathBuf>,
    /// `None` where the spec says all that it could.
    pub(super) resolv_conf: Option<PathBuf>,
}

/// What they say.
#[derive(Debug, Default)]
pub(super) struct Files {
    hosts: HashMap<String, Vec<IpAddr>>,
    pub(super) resolv_conf: ResolvConf,
    stamps: [Option<FileStamp>; 2],
}

/// The parts of `/etc/resolv.conf` that are used.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ResolvConf {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<String>,
    pub(super) ndots: Option<u32>,
}

impl Files {
    /// The same again where nothing has changed. Blocks.
    ///
    /// # Errors
    /// A file that the spec names is not to be read, in words. `/etc/hosts` and `/etc/resolv.conf` need not be there.
    pub(super) fn read(paths: &Paths, known: Arc<Files>) -> Result<Arc<Files>, String> {
        let files = [&paths.hosts, &paths.resolv_conf].map(Option::as_deref);
        let opened = files.map(|path| path.map(open).transpose());
        let [hosts, resolv_conf] = opened;
        let (hosts, resolv_conf) = (hosts?.flatten(), resolv_conf?.flatten());
        let stamps = [&hosts, &resolv_conf].map(|file| file.as_ref().map(|(_, about)| FileStamp::new(about)));
        if stamps == known.stamps {
            return Ok(known);
        }
        let text = |file: Option<(File, Metadata)>, path: Option<&Path>| match (file, path) {
            (Some((file, _)), Some(path)) => whole(file, path),
            (None, _) | (_, None) => Ok(String::new()),
        };
        Ok(Arc::new(Files {
            hosts: hosts_of(&text(hosts, files[0])?),
            resolv_conf: resolv_conf_of(&text(resolv_conf, files[1])?),
            stamps,
        }))
    }

    /// The addresses of a name in the hosts file.
    pub(super) fn host(&self, name: &str) -> Option<&[IpAddr]> {
        self.hosts.get(&key(name)).map(Vec::as_slice)
    }
}

fn open(path: &Path) -> Result<Option<(File, Metadata)>, String> {
    let fault = |error: io::Error| format!("{}: {error}", path.display());
    // Looked at before it is opened: the open of a pipe would wait.
    let is_file = match path.metadata() {
        Ok(about) => about.is_file(),
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.starts_with("/etc") => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    if !is_file {
        return Err(format!("{}: not a regular file", path.display()));
    }
    let file = File::open(path).map_err(fault)?;
    let about = file.metadata().map_err(fault)?;
    Ok(Some((file, about)))
}

fn whole(file: File, path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{}: longer than {MAX_FILE_BYTES} bytes", path.display()));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An address, then its names; what is none is passed over, as the system's resolver does.
fn hosts_of(text: &str) -> HashMap<String, Vec<IpAddr>> {
    let mut hosts: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let Some(addr) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for name in words {
            let addrs = hosts.entry(key(name)).or_default();
            if addrs.len() < super::MAX_ADDRESSES && !addrs.contains(&addr) {
                addrs.push(addr);
            }
        }
    }
    hosts
}

fn resolv_conf_of(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.lines() {
        // A comment has its mark at the start of a line.
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => {
                let server = words.next().and_then(|word| word.parse::<IpAddr>().ok());
                let server = server.map(|ip| SocketAddr::new(ip, 53));
                conf.servers.extend(server.filter(|_| conf.servers.len() < MAX_ENTRIES));
            }
            // Of several the last one counts.
            Some("search" | "domain") => {
                conf.search = words.take(MAX_ENTRIES).map(|word| key(word.trim_end_matches('.'))).collect();
            }
            Some("options") => {
                let ndots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse().ok()).next_back();
                conf.ndots = ndots.map(|ndots: u32| ndots.min(MAX_NDOTS)).or(conf.ndots);
            }
            Some(_) | None => {}
        }
    }
    if conf.servers.is_empty() {
        conf.servers.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    conf
}

fn key(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

const MAX_FILE_BYTES: u64 = 4 << 20;
/// Servers, and domains.
const MAX_ENTRIES: usize = 8;
const MAX_NDOTS: u32 = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_gives_names_their_addresses() {
        let hosts = hosts_of(
            "# comment\n127.0.0.1\tlocalhost  LocalHost.localdomain # more\n::1 localhost\nfe80::1%lo zone\n\
             not-an-address x\n192.0.2.1\n192.0.2.7 app.\n192.0.2.7 app",
        );
        let of = |name: &str| hosts.get(name).map(|addrs| addrs.iter().map(ToString::to_string).collect());
        let list = |addrs: &[&str]| Some(addrs.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of("localhost"), list(&["127.0.0.1", "::1"]));
        assert_eq!(of("localhost.localdomain"), list(&["127.0.0.1"]));
        assert_eq!(of("app"), list(&["192.0.2.7"]));
        assert_eq!(hosts.len(), 3, "{hosts:?}");
    }

    #[test]
    fn a_name_has_a_bounded_number_of_addresses() {
        let text: String = (0..100).map(|last| format!("192.0.2.{last} many\n")).collect();
        assert_eq!(hosts_of(&text)["many"].len(), 64);
    }

    #[test]
    fn servers_search_list_and_dots_of_resolv_conf() {
        let conf = resolv_conf_of(
            "; comment\n#nameserver 192.0.2.9\ndomain old.example\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n\
             nameserver what\nsearch A.example. b.example\noptions rotate ndots:2 ndots:99 timeout:1\noptions edns0",
        );
        let servers = ["192.0.2.53:53", "[2001:db8::53]:53"].map(|text| text.parse().expect("an address"));
        let search = ["a.example", "b.example"].map(str::to_owned).to_vec();
        assert_eq!(conf, ResolvConf { servers: servers.to_vec(), search, ndots: Some(15) });
        let many: String = (0..20).map(|last| format!("nameserver 192.0.2.{last}\n")).collect();
        assert_eq!(resolv_conf_of(&many).servers.len(), 8);
        let none = ResolvConf { servers: vec![([127, 0, 0, 1], 53).into()], ..ResolvConf::default() };
        assert_eq!(resolv_conf_of(""), none, "the system's own words for: a server on this machine");
    }

    #[test]
    fn files_are_read_again_when_they_change() {
        let path = std::env::temp_dir().join(format!("ringport-hosts-{}", std::process::id()));
        let paths = Paths { hosts: Some(path.clone()), resolv_conf: None };
        let read = |known: &Arc<Files>| Files::read(&paths, known.clone());
        let none = Arc::new(Files::default());
        let error = read(&none).expect_err("it is not there");
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        std::fs::write(&path, "192.0.2.1 a\n").expect("a file");
        let first = read(&none).expect("it is there");
        assert_eq!(first.host("A."), Some(&[IpAddr::from([192, 0, 2, 1])][..]));
        assert!(Arc::ptr_eq(&read(&first).expect("it is there"), &first), "it was not read again");
        std::fs::write(&path, "192.0.2.22 a\n").expect("a file");
        let second = read(&first).expect("it is there");
        assert_eq!(second.host("a"), Some(&[IpAddr::from([192, 0, 2, 22])][..]));

        std::fs::write(&path, vec![b'\n'; MAX_FILE_BYTES as usize + 1]).expect("a file");
        assert!(read(&second).expect_err("too long").contains("longer"));
        std::fs::remove_file(&path).expect("a file");
        let folder = Paths { hosts: Some(std::env::temp_dir()), resolv_conf: None };
        Files::read(&folder, none.clone()).expect_err("a folder");
        let absent = Paths { hosts: Some("/etc/no such file".into()), resolv_conf: None };
        let files = Files::read(&absent, none).expect("it need not be there");
        assert_eq!(files.host("localhost"), None);
    }
}
