//! The section `runtime` of a config: which driver, and which processors its cores run on.

use std::process::Command;

use crate::origin::Origin;
use crate::process::{Process, ringport, run, skipped};
use crate::rig::Folder;

fn config(runtime: &str) -> (Folder, String) {
    let folder = Folder::new();
    let origin = Origin::refusing();
    let text = format!(
        "listeners: [{{ name: web, address: \"127.0.0.1:0\" }}]\nroutes: [{{ pool: o }}]\n\
         pools: [{{ name: o, origins: [{{ address: \"{origin}\" }}] }}]\nruntime: {{ {runtime} }}\n"
    );
    let path = folder.file("c.yaml", &text).to_str().expect("a plain path").to_owned();
    (folder, path)
}

fn chosen(command: &mut Command) -> String {
    let proxy = Process::start(command);
    proxy.wait_for(|line| Some(line.split_once("driver: ")?.1.to_owned()))
}

#[test]
fn the_config_chooses_the_driver_where_the_environment_does_not() {
    let (_folder, path) = config("cores: 1, driver: epoll");
    let arguments = ["proxy", "--config", path.as_str()];
    assert_eq!(chosen(&mut ringport(&arguments)), "epoll, as asked for");
    let auto = chosen(ringport(&arguments).env("RINGPORT_DRIVER", "auto"));
    assert_ne!(auto, "epoll, as asked for", "the environment wins");
    let probe = run(&mut ringport(&["probe", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&probe.out).expect("JSON");
    if json["uring"]["available"] != true {
        return skipped("a config that asks for io_uring", "this machine has none");
    }
    let (_folder, path) = config("cores: 1, driver: uring");
    let driver = chosen(&mut ringport(&["proxy", "--config", path.as_str()]));
    assert!(driver.starts_with("uring, as asked for"), "{driver}");
}

#[test]
fn cores_are_bound_to_processors_where_the_config_says_so() {
    let allowed = processors("self", "self");
    if allowed.len() < 2 {
        return skipped("cores bound to processors", "there is one processor only");
    }
    for (affinity, count) in [(true, 1), (false, allowed.len())] {
        let (_folder, path) = config(&format!("cores: 2, affinity: {affinity}"));
        let proxy = Process::start(&mut ringport(&["proxy", "--config", path.as_str()]));
        proxy.listening("web");
        let pid = proxy.pid().to_string();
        let of_cores = ["core-0", "core-1"].map(|name| processors(&pid, name));
        assert!(of_cores.iter().all(|processors| processors.len() == count), "{affinity}: {of_cores:?}");
        assert_eq!(of_cores[0] != of_cores[1], affinity, "{of_cores:?}");
    }
}

/// The processors on which the thread of this name may run.
fn processors(pid: &str, thread: &str) -> Vec<u32> {
    let status = match thread {
        "self" => std::fs::read_to_string("/proc/thread-self/status").ok(),
        name => std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads").find_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            text.starts_with(&format!("Name:\t{name}\n")).then_some(text)
        }),
    };
    let status = status.expect("a thread of that name");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("a list");
    let number = |text: &str| text.trim().parse::<u32>().expect("a number");
    line.split(',')
        .flat_map(|range| match range.split_once('-') {
            Some((first, last)) => number(first)..=number(last),
            None => number(range)..=number(range),
        })
        .collect()
}
